//! Declarative transforms: what each field of the new event is made from, and which events are left out.
//!
//! | module | owns |
//! |---|---|
//! | [`definition`], [`table`], [`path`] | what is told, read and checked whole before the first event |
//! | [`filter`] | `drop_if` |
//! | [`source`] | one walk over an event that finds every value |
//! | [`convert`], [`hash`], [`mask`] | what a value becomes |
//! | [`explain`] | the same for one event, field by field, in words |
//!
//! The order of judgement: the whole message (UTF-8, grammar, depth, duplicate keys), then the filters on raw fields, then
//! each field in its order; surrogates, types and times are judged only in what is kept.

pub mod convert;
pub mod definition;
pub mod explain;
pub mod filter;
pub mod hash;
pub mod mask;
pub mod path;
pub mod source;
pub mod table;

use std::cell::RefCell;

use jiff::tz::TimeZone;

pub use self::definition::Definition;
use self::definition::{Field, Make};
use self::filter::Filter;
use self::hash::Keyed;
use self::source::{Found, Names};
use super::product_views;
use crate::error::{Error, Result};
use crate::json::{DeadLetter, Kind, Reason, Tape, compact, text};

thread_local! {
    static WORK: RefCell<Work> = RefCell::default();
}

/// What one event needs; kept between events so that few of them allocate.
#[derive(Debug, Default)]
struct Work {
    tape: Tape,
    found: Found,
}

/// A definition made ready for events.
#[derive(Debug, Clone)]
pub struct Rules {
    names: Names,
    /// Slots of fields come first, then those that only filters look at.
    slots: usize,
    field_slots: usize,
    fields: Vec<Rule>,
    keep_unknown: bool,
    filters: Vec<(usize, Filter)>,
    product_views: Option<WallClock>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    /// What stands before the value: a bracket or a comma, the name, a colon.
    lead: Vec<u8>,
    sources: Vec<usize>,
    maker: Maker,
    absent: Absent,
    /// Whether an event may have a member of this name that no field takes.
    may_clash: bool,
}

#[derive(Debug, Clone)]
enum Maker {
    Type(convert::Type),
    Hash(Keyed),
    MaskIp,
}

/// What stands in for a value that is missing or null.
#[derive(Debug, Clone)]
enum Absent {
    Null,
    Default(Vec<u8>),
    Refused,
}

/// `PRODUCT_VIEWS`: a missing time is derived from the shop's clock, where a zone is given.
#[derive(Debug, Clone)]
struct WallClock {
    zone: Option<TimeZone>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// Its bytes stay.
    Same,
    /// It has new ones.
    Changed,
    /// It is left out.
    Filtered,
}

impl Rules {
    /// Makes a definition ready.
    ///
    /// # Errors
    /// `Config` for a default that its own field would refuse, or a zone that does not exist.
    pub fn new(definition: &Definition) -> Result<Self> {
        let (mut names, mut slots) = (Names::default(), 0);
        let mut slot = |path: &path::Path, taken: bool| {
            let slot = names.add(path, slots, taken);
            slots = slots.max(slot + 1);
            slot
        };
        let mut fields = Vec::with_capacity(definition.fields.len());
        for field in &definition.fields {
            let sources = field.from.iter().map(|path| slot(path, true)).collect();
            fields.push(Rule::new(field, sources, fields.is_empty())?);
        }
        let field_slots = fields.iter().flat_map(|field| &field.sources).max().map_or(0, |last| last + 1);
        let filters = definition.drop_if.iter().map(|filter| (slot(&filter.field, false), filter.clone())).collect();
        names.sort();
        for rule in &mut fields {
            rule.may_clash = !names.takes(rule.name.as_bytes());
        }
        let product_views = match &definition.product_views {
            None => None,
            Some(views) => {
                Some(WallClock { zone: views.local_time_zone.as_deref().map(product_views::zone).transpose()? })
            }
        };
        Ok(Self { names, slots, field_slots, fields, keep_unknown: definition.keep_unknown, filters, product_views })
    }

    /// Writes the new form of an event to `out`.
    ///
    /// # Errors
    /// Why the event is a dead letter; `out` then holds rubbish.
    pub fn apply(&self, message: &[u8], out: &mut Vec<u8>) -> Result<Became, DeadLetter> {
        WORK.with_borrow_mut(|work| {
            out.clear();
            self.read(work, message)?;
            if self.dropped(work, message).is_some() {
                return Ok(Became::Filtered);
            }
            self.any_field(work)?;
            for rule in &self.fields {
                out.extend_from_slice(&rule.lead);
                self.value(rule, work, message, out).map_err(|letter| within(&rule.name, &letter))?;
            }
            if self.keep_unknown {
                self.unknown(work, message, out)?;
            }
            out.extend_from_slice(if out.is_empty() { b"{}" } else { b"}" });
            Ok(Became::Changed)
        })
    }

    fn read(&self, work: &mut Work, message: &[u8]) -> Result<(), DeadLetter> {
        work.tape.read(message)?;
        self.names.find(&work.tape, message, self.slots, &mut work.found);
        Ok(())
    }

    /// The first filter that drops the event.
    fn dropped(&self, work: &Work, message: &[u8]) -> Option<&Filter> {
        let holds = |(slot, filter): &&(usize, Filter)| {
            let token = work.there(*slot).map(|at| &work.tape.tokens[at]);
            filter.holds(token, message)
        };
        self.filters.iter().find(holds).map(|(_, filter)| filter)
    }

    /// `PRODUCT_VIEWS` takes an event that has none of its fields for no event of its kind.
    fn any_field(&self, work: &Work) -> Result<(), DeadLetter> {
        let none = || work.found.values[..self.field_slots].iter().all(|at| *at == 0);
        if self.product_views.is_some() && none() {
            return Err(DeadLetter::new(Reason::NoField, "none of the fields of an event is there"));
        }
        Ok(())
    }

    /// Appends the value of one field.
    fn value(&self, rule: &Rule, work: &Work, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
        if let Some((_, at)) = rule.winner(work) {
            return rule.maker.write(&work.tape, message, at, out);
        }
        if let Some(WallClock { zone: Some(zone) }) = &self.product_views
            && rule.name == product_views::TIMESTAMP
            && let Some(clock) = self.fields.iter().find(|rule| rule.name == product_views::LOCAL_TIME)
            && let Some((_, at)) = clock.winner(work)
            && product_views::derived(&work.tape.tokens[at], message, zone, out)
        {
            return Ok(());
        }
        match &rule.absent {
            Absent::Null => out.extend_from_slice(b"null"),
            Absent::Default(json) => out.extend_from_slice(json),
            Absent::Refused => return Err(DeadLetter::new(Reason::Required, "missing or null")),
        }
        Ok(())
    }

    /// Appends the members that no field takes, each as it is.
    fn unknown(&self, work: &Work, message: &[u8], out: &mut Vec<u8>) -> Result<(), DeadLetter> {
        for member in work.found.unknown.iter().map(|at| *at as usize) {
            let key = work.tape.tokens[member];
            let begun = out.len();
            out.push(if begun == 0 { b'{' } else { b',' });
            compact::string(&key, message, out)?;
            out.push(b':');
            if self.fields.iter().any(|rule| rule.may_clash && rule.lead[1..] == out[begun + 1..]) {
                let name = String::from_utf8_lossy(key.text(message)).chars().take(60).collect::<String>();
                return Err(DeadLetter::new(
                    Reason::FieldConflict,
                    format!("the event has a member {name} of its own"),
                ));
            }
            compact::value(&work.tape, message, member + 1, out)?;
        }
        Ok(())
    }
}

/// Says in which field it is.
fn within(name: &str, letter: &DeadLetter) -> DeadLetter {
    DeadLetter::new(letter.reason, format!("{name}: {}", letter.detail))
}

impl Work {
    /// The token in a slot, unless it is missing or null.
    fn there(&self, slot: usize) -> Option<usize> {
        let at = self.found.values[slot] as usize;
        (at > 0 && self.tape.tokens[at].kind != Kind::Null).then_some(at)
    }
}

impl Rule {
    fn new(field: &Field, sources: Vec<usize>, first: bool) -> Result<Self> {
        let mut lead = vec![if first { b'{' } else { b',' }];
        text::encode(field.name.as_bytes(), &mut lead);
        lead.push(b':');
        let (maker, stands) = match &field.make {
            Make::Type(kind) => (Maker::Type(*kind), Maker::Type(*kind)),
            Make::Hash(function, key) => (Maker::Hash(Keyed::new(*function, key)), Maker::Type(convert::Type::String)),
            Make::MaskIp => (Maker::MaskIp, Maker::Type(convert::Type::String)),
        };
        let absent = match &field.default {
            Some(json) => Absent::Default(stands.of(json).map_err(|letter| {
                let place = table::inside(&table::inside(table::TOP, "fields"), &field.name);
                Error::config(format!("{place}.default: {}: {}", letter.reason.as_str(), letter.detail))
                    .hint("give a value that the field itself would take")
            })?),
            None if field.required => Absent::Refused,
            None => Absent::Null,
        };
        Ok(Self { name: field.name.clone(), lead, sources, maker, absent, may_clash: true })
    }

    /// The first source that is there and not null: its place in `from`, and its token.
    fn winner(&self, work: &Work) -> Option<(usize, usize)> {
        self.sources.iter().enumerate().find_map(|(place, slot)| work.there(*slot).map(|at| (place, at)))
    }
}

impl Maker {
    fn write(&self, tape: &Tape, message: &[u8], at: usize, out: &mut Vec<u8>) -> Result<(), DeadLetter> {
        match self {
            Self::Type(kind) => kind.write(tape, message, at, out),
            Self::Hash(keyed) => {
                keyed.write(&convert::spelling(&tape.tokens[at], message)?, out);
                Ok(())
            }
            Self::MaskIp if mask::ip(&convert::spelling(&tape.tokens[at], message)?, out) => Ok(()),
            Self::MaskIp => Err(DeadLetter::new(Reason::BadIp, "no IP address")),
        }
    }

    /// What JSON of a definition becomes.
    fn of(&self, json: &str) -> Result<Vec<u8>, DeadLetter> {
        let message = format!("{{\"default\":{json}}}");
        let (mut tape, mut out) = (Tape::default(), Vec::new());
        tape.read(message.as_bytes())?;
        self.write(&tape, message.as_bytes(), 2, &mut out)?;
        Ok(out)
    }
}
