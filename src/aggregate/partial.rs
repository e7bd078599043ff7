//! The kernel: `fold` (events → Partial), `merge` (Partial + Partial → Partial); `finish` is in [`super::rows`].
//!
//! A Partial holds, per date, report and key, the count, the latest moment and the exact set of devices. Keys and devices
//! are interned, so that a set is one of pairs of small numbers.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::element::{Element, walk};
use super::instant::Instant;
use super::interned::Interned;
use super::visitors::Visitors;

/// The reports of the default set, in the order of [`DatePartial::reports`].
pub const REPORTS: [(&str, &str); 3] = [
    ("product_views_daily", "product_id"),
    ("country_views_daily", "store_id"),
    ("referrer_views_daily", "referrer_url"),
];
const REFERRER: usize = 2;
/// What a VARCHAR(255) key holds, in code points.
pub const KEY_LENGTH: usize = 255;

/// Samples kept of documents with unusable keys.
const SAMPLES: usize = 20;

/// One key of one report on one date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub views: u64,
    pub last_micros: i64,
}

/// One report on one date.
#[derive(Debug, Default, Clone)]
pub struct Groups {
    pub rows: HashMap<u32, Row, FixedState>,
    pub visitors: Visitors,
    /// Events without a usable key, by reason.
    pub excluded: BTreeMap<&'static str, u64>,
}

/// One date.
#[derive(Debug, Default, Clone)]
pub struct DatePartial {
    pub counted: u64,
    pub reports: [Groups; 3],
}

/// What folding events gives.
#[derive(Debug, Default, Clone)]
pub struct Partial {
    pub keys: Interned,
    pub devices: Interned,
    pub dates: BTreeMap<i32, DatePartial>,
    pub scanned: u64,
    pub counted: u64,
    pub excluded: BTreeMap<&'static str, u64>,
    /// Device ids that are neither text nor integer: their events count, their visitors do not.
    pub unfit_devices: u64,
    /// Documents that no known source wrote.
    pub foreign: u64,
    /// The latest date met that was not asked for and is not beyond [`Wanted::limit`].
    pub later: Option<i32>,
    /// A few documents whose key or device could not be used: field, reason, document.
    pub samples: BTreeSet<(&'static str, &'static str, String)>,
}

/// Which documents count.
pub trait Wanted {
    /// Whether a date is asked for.
    fn date(&self, date: i32) -> bool;
    /// The last moment, in microseconds since 1970, that may count as the latest.
    fn limit(&self) -> i64;
    /// `Some(true)` below its source's position, `Some(false)` beyond it, `None` for an unknown source.
    fn covered(&self, id: &[u8; 12]) -> Option<bool>;
}

impl Partial {
    /// Folds one raw document.
    pub fn fold(&mut self, document: &[u8], time_field: &[u8], wanted: &impl Wanted) {
        self.scanned += 1;
        let (mut id, mut time, mut device) = (Element::Missing, Element::Missing, Element::Missing);
        let mut keys = [Element::Missing; 3];
        let whole = walk(document, |name, element| {
            if name == time_field {
                time = element;
            }
            match name {
                b"_id" => id = element,
                b"product_id" => keys[0] = element,
                b"store_id" => keys[1] = element,
                b"referrer_url" => keys[2] = element,
                b"device_id" => device = element,
                _ => {}
            }
        });
        if !whole {
            return self.exclude("malformed_document");
        }
        let covered = if let Element::ObjectId(id) = id { wanted.covered(id) } else { None };
        match covered {
            Some(false) => return self.exclude("beyond_position"),
            None => self.foreign += 1,
            Some(true) => {}
        }
        let instant = match time {
            Element::Missing | Element::Null => return self.exclude("missing_time"),
            Element::Text(text) => Instant::read(text),
            Element::Date(millis) => millis.checked_mul(1_000).and_then(Instant::from_micros),
            _ => None,
        };
        let Some(instant) = instant else { return self.exclude("malformed_time") };
        if !wanted.date(instant.date) {
            if instant.micros <= wanted.limit() {
                self.later = self.later.max(Some(instant.date));
            }
            return self.exclude("other_date");
        }
        self.counted += 1;
        let mut spelled = [0_u8; 20];
        let device = match key(device, &mut spelled, KEY_LENGTH) {
            Ok(device) => Some(self.devices.number(device)),
            Err("null_key") => None,
            Err(reason) => {
                self.unfit_devices += 1;
                self.sample("device_id", reason, id);
                None
            }
        };
        let date = self.dates.entry(instant.date).or_default();
        date.counted += 1;
        let mut unusable = [None; 3];
        for (report, element) in keys.into_iter().enumerate() {
            let longest = if report == REFERRER { usize::MAX } else { KEY_LENGTH };
            let groups = &mut date.reports[report];
            match key(element, &mut spelled, longest) {
                Ok(text) => groups.count(self.keys.number(text), instant.micros, device, report != REFERRER),
                Err(reason) => {
                    *groups.excluded.entry(reason).or_default() += 1;
                    unusable[report] = (reason != "null_key").then_some(reason);
                }
            }
        }
        for (report, reason) in unusable.into_iter().enumerate() {
            if let Some(reason) = reason {
                self.sample(REPORTS[report].1, reason, id);
            }
        }
    }

    fn exclude(&mut self, reason: &'static str) {
        *self.excluded.entry(reason).or_default() += 1;
    }

    fn sample(&mut self, field: &'static str, reason: &'static str, id: Element<'_>) {
        // Not one for each of a million: whoever mends the data needs a place to begin.
        if self.samples.len() < SAMPLES {
            self.samples.insert((field, reason, id.to_string()));
        }
    }

    /// Brings the sets of visitors into order: worth doing before a merge, on the thread that folded.
    pub fn settle(&mut self) {
        for groups in self.dates.values_mut().flat_map(|date| &mut date.reports) {
            groups.visitors.settle();
        }
    }

    /// Adds another Partial to this one.
    pub fn merge(&mut self, other: Self) {
        let keys = self.keys.adopt(&other.keys);
        let devices = self.devices.adopt(&other.devices);
        self.scanned += other.scanned;
        self.counted += other.counted;
        self.unfit_devices += other.unfit_devices;
        self.foreign += other.foreign;
        self.later = self.later.max(other.later);
        self.samples.extend(other.samples.into_iter().take(SAMPLES.saturating_sub(self.samples.len())));
        for (reason, count) in other.excluded {
            *self.excluded.entry(reason).or_default() += count;
        }
        for (date, theirs) in other.dates {
            let ours = self.dates.entry(date).or_default();
            ours.counted += theirs.counted;
            for (ours, theirs) in ours.reports.iter_mut().zip(theirs.reports) {
                for (key, row) in theirs.rows {
                    let mine = ours.rows.entry(keys[key as usize]).or_insert(Row { views: 0, last_micros: i64::MIN });
                    mine.views += row.views;
                    mine.last_micros = mine.last_micros.max(row.last_micros);
                }
                ours.visitors.merge(theirs.visitors, &keys, &devices);
                for (reason, count) in theirs.excluded {
                    *ours.excluded.entry(reason).or_default() += count;
                }
            }
        }
    }
}

impl Groups {
    fn count(&mut self, key: u32, micros: i64, device: Option<u32>, visitors: bool) {
        let row = self.rows.entry(key).or_insert(Row { views: 0, last_micros: i64::MIN });
        row.views += 1;
        row.last_micros = row.last_micros.max(micros);
        if let Some(device) = device
            && visitors
        {
            self.visitors.add(key, device);
        }
    }
}

/// A key's text, or why there is none.
fn key<'a>(element: Element<'a>, spelled: &'a mut [u8; 20], longest: usize) -> Result<&'a str, &'static str> {
    match element {
        Element::Missing | Element::Null => Err("null_key"),
        Element::Text(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| "key_unfit")?;
            let long = bytes.len() > longest && text.chars().count() > longest;
            if long || memchr::memchr(0, bytes).is_some() { Err("key_unfit") } else { Ok(text) }
        }
        Element::Integer(number) => {
            use std::io::Write;
            let room = spelled.len();
            let mut rest = &mut spelled[..];
            write!(rest, "{number}").map_err(|_| "key_unfit")?;
            let used = room - rest.len();
            std::str::from_utf8(&spelled[..used]).map_err(|_| "key_unfit")
        }
        _ => Err("key_type"),
    }
}
