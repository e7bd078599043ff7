//! Dead letters of a bridge → its target topic, through a corrected transform, once each.
//!
//! | module | owns |
//! |---|---|
//! | [`settings`] | what a replay is told and answers |
//! | [`letter`] | one letter: its origin, and whether it is chosen |
//! | [`restore`] | a letter becomes the event that should have been written |
//! | [`marks`] | which letters were replayed |
//!
//! The guarantee is the bridge's, on one cluster: a transaction holds events and the marks of their letters, or none of
//! them. The order at the start carries it: `init_transactions` (fences an older replay and ends its open transaction),
//! then the marks, then the letters' ends. Letters are never deleted or changed.

pub mod letter;
pub mod marks;
pub mod restore;
pub mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::message::Message;
use rdkafka::producer::Producer;

use self::letter::Letter;
use self::marks::Marks;
use self::restore::{Event, restore};
use self::settings::Failure;
pub use self::settings::{ReplayResult, ReplaySettings};

use crate::bridge::target::{self, Target};
use crate::bridge::transaction::{Commit, Room, Transactions, transactional_id};
use crate::bridge::transform::Ready;
use crate::bridge::{positions, record, until_visible};
use crate::control::{Control, Level};
use crate::error::{Error, Result};
use crate::kafka::{Cluster, Role, Topic, native, tokens};

/// Letters held at once end here, whatever their number.
const CHUNK_BYTES: usize = 8 << 20;
/// Letters looked at between two transactions, chosen or not.
const CHUNK_LOOKS: u64 = 50_000;
/// Failures that are told singly.
const TOLD: usize = 50;
/// As in a lane of a bridge.
const RESTARTS: u32 = 20;
const QUEUE_KBYTES: u64 = 32 * 1024;

struct Replay<'a> {
    settings: &'a ReplaySettings,
    cluster: Cluster,
    letters: Topic,
    target: Target,
    transform: Ready,
    marks_topic: String,
    /// Partitions of the topics that letters came from.
    sources: BTreeMap<String, i32>,
    control: Arc<Control>,
}

/// How far the letters are read, and what became of them so far.
struct Done {
    /// Per partition of the letters: the next one, and the end.
    open: BTreeMap<i32, (i64, i64)>,
    marks: Marks,
    books: ReplayResult,
}

/// What a transaction would add.
#[derive(Default)]
struct Pending {
    next: BTreeMap<i32, i64>,
    marked: Vec<(i32, i64)>,
    books: ReplayResult,
}

/// Sends the chosen letters once each, and returns the books.
///
/// # Errors
/// By domain: see [`crate::error::Domain`].
pub fn replay(settings: &ReplaySettings, control: &Arc<Control>) -> Result<ReplayResult> {
    let began = Instant::now();
    settings.check()?;
    let transform = Ready::new(&settings.transform)?;
    let cluster = Cluster::connect(&settings.target, Role::Target, control)?;
    let letters = cluster.topic(&settings.letters())?;
    let target = target::existing(&settings.allow, &settings.target_topic, &cluster)?;
    let marks_topic = settings.marks();
    positions::ensure(&cluster, &marks_topic, letters.partitions, control)?;
    let mut replay = Replay {
        settings,
        cluster,
        letters,
        target,
        transform,
        marks_topic,
        sources: BTreeMap::new(),
        control: Arc::clone(control),
    };
    let transactions = replay.init()?;
    let mut done = replay.start()?;
    replay.carry(transactions, &mut done)?;
    let mut books = done.books;
    balance(&books)?;
    if books.written > 0 {
        until_visible(&replay.cluster, &replay.target.topic, control);
    }
    books.target_topic.clone_from(&settings.target_topic);
    books.dead_letter_topic = settings.letters();
    books.seconds = began.elapsed().as_secs_f64();
    Ok(books)
}

fn balance(books: &ReplayResult) -> Result<()> {
    if books.chosen == books.written + books.filtered + books.already_replayed + books.failed {
        return Ok(());
    }
    Err(Error::bug(format!(
        "replay: the books do not balance: chosen {} != written {} + filtered {} + already_replayed {} + failed {}",
        books.chosen, books.written, books.filtered, books.already_replayed, books.failed
    )))
}

impl Replay<'_> {
    /// One transactional id for each pair of topics, so that two replays of the same letters fence each other (I3).
    fn init(&self) -> Result<Transactions> {
        let job = format!("replay\n{}", self.settings.target_topic);
        let id = transactional_id(&job, &self.cluster.id, &self.letters.name, 0);
        let room = Room {
            queue_kbytes: QUEUE_KBYTES,
            partitions: u64::try_from(self.target.topic.partitions).unwrap_or(1),
            batch: self.target.max_bytes,
            largest: self.target.max_bytes,
        };
        Transactions::init(&self.cluster, &id, &self.settings.target_topic, &room, &self.control)
    }

    fn read_marks(&self) -> Result<Marks> {
        Marks::read(&self.cluster, &self.marks_topic, &self.letters, &self.target.topic, &self.control)
    }

    fn start(&self) -> Result<Done> {
        let marks = self.read_marks()?;
        let all: Vec<i32> = (0..self.letters.partitions).collect();
        let ends = self.cluster.ends(&self.letters.name, &all)?;
        let open: BTreeMap<_, _> = ends.iter().map(|end| (end.partition, (end.start, end.last_stable))).collect();
        let offsets: i64 = open.values().map(|(next, end)| end - next).sum();
        self.control.add_total(u64::try_from(offsets).unwrap_or(0));
        Ok(Done { open, marks, books: ReplayResult::default() })
    }

    /// The loop: read letters, write events and marks, commit; start again where a transaction's outcome is in doubt.
    fn carry(&mut self, mut transactions: Transactions, done: &mut Done) -> Result<()> {
        let mut restarts = 0;
        while done.open.values().any(|(next, end)| next < end) {
            self.control.check("replay: read dead letters")?;
            let (letters, mut pending) = self.read(&done.open)?;
            let doubt = match self.write(&mut transactions, &letters, &done.marks, &mut pending) {
                Ok(()) => {
                    self.commit_books(done, pending);
                    restarts = 0;
                    continue;
                }
                Err(error) if error.retryable() && restarts < RESTARTS => error,
                Err(error) => {
                    transactions.abort();
                    return Err(error);
                }
            };
            restarts += 1;
            self.control.log(Level::Warning, format!("replay: starts again ({restarts}): {doubt}"));
            drop(transactions);
            self.control.sleep("replay: start again", Duration::from_millis(200))?;
            transactions = self.init()?;
            // The kept marks, not we, say whether the commit happened.
            done.marks = self.read_marks()?;
            let kept =
                pending.marked.iter().filter(|(partition, offset)| done.marks.holds(*partition, *offset)).count();
            if kept > 0 {
                if kept < pending.marked.len() {
                    return Err(Error::bug(format!("replay: topic {} holds half a transaction", self.marks_topic)));
                }
                self.commit_books(done, pending);
            }
        }
        Ok(())
    }

    /// The next chosen letters, and how far was looked for them.
    fn read(&self, open: &BTreeMap<i32, (i64, i64)>) -> Result<(Vec<Letter>, Pending)> {
        let ranges: Vec<_> = open.iter().map(|(partition, (next, end))| (*partition, *next, *end)).collect();
        let most = usize::try_from(self.settings.transaction_letters).unwrap_or(usize::MAX);
        let (mut letters, mut bytes) = (Vec::new(), 0);
        let mut pending = Pending::default();
        let mut full = false;
        self.cluster.read(&self.letters.name, &ranges, |message| {
            // A slow consumer's fetch may still hold what an earlier reading was given.
            let (Some((next, end)), place) = (open.get(&message.partition()), message.offset()) else {
                return Ok(true);
            };
            if place < *next || place >= *end {
                return Ok(true);
            }
            pending.books.read += 1;
            pending.next.insert(message.partition(), place + 1);
            let letter = Letter::read(message);
            if letter.is_chosen(&self.settings.chosen) {
                bytes += letter.size();
                letters.push(letter);
            }
            full = letters.len() >= most || bytes >= CHUNK_BYTES || pending.books.read >= CHUNK_LOOKS;
            Ok(!full)
        })?;
        if !full {
            pending.next = open.iter().map(|(partition, (_, end))| (*partition, *end)).collect();
        }
        pending.books.chosen = letters.len() as u64;
        Ok((letters, pending))
    }

    /// One transaction of events and marks; none when nothing is to be written.
    fn write(
        &mut self,
        transactions: &mut Transactions,
        letters: &[Letter],
        marks: &Marks,
        pending: &mut Pending,
    ) -> Result<()> {
        tokens::give(transactions.producer.client())?;
        let now_ms = record::now_ms();
        let mut events: Vec<(&Letter, Event)> = Vec::new();
        for letter in letters {
            if marks.holds(letter.partition, letter.offset) {
                pending.books.already_replayed += 1;
                continue;
            }
            let partitions = self.source_partitions(letter)?;
            match restore(&self.target, &self.transform, letter, partitions, now_ms) {
                Ok(Some(event)) => events.push((letter, event)),
                // No mark: nothing was written, and another transform may want it.
                Ok(None) => pending.books.filtered += 1,
                Err((reason, detail)) => fail(&mut pending.books, letter, reason, detail),
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        transactions.begin()?;
        for (letter, event) in &events {
            self.send(transactions, letter, event)?;
            pending.books.written += 1;
            pending.books.bytes += event.value.as_ref().map_or(0, Vec::len) as u64;
        }
        #[cfg(feature = "sabotage")]
        if crate::sabotage::is("mark_outside_transaction") {
            transactions.commit()?;
            transactions.begin()?;
        }
        for (letter, _) in &events {
            let place = (letter.partition, letter.offset);
            let topic = &self.target.topic;
            marks::write(transactions, &self.marks_topic, &self.letters, topic, place, &self.control)?;
            pending.marked.push(place);
        }
        pending.books.transactions = 1;
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("replay.before_commit");
        if let Commit::Doubtful(why) = transactions.commit()? {
            return Err(Error::external(format!("target: commit of a replay of topic {}: {why}", self.letters.name)));
        }
        #[cfg(feature = "sabotage")]
        crate::sabotage::step("replay.after_commit");
        Ok(())
    }

    fn send(&self, transactions: &Transactions, letter: &Letter, event: &Event) -> Result<()> {
        let what =
            || format!("letter of topic {} partition {} offset {}", self.letters.name, letter.partition, letter.offset);
        let (key, value) = (letter.key.as_deref(), event.value.as_deref());
        let place = (event.partition, event.timestamp_ms);
        transactions.hand_over(
            |client| native::produce_parts(client, &transactions.topic, place, key, value, &letter.headers),
            what,
            &self.control,
        )
    }

    /// How many partitions the letter's source has: the positions of its job have as many, and the cluster itself may be
    /// out of reach.
    fn source_partitions(&mut self, letter: &Letter) -> Result<i32> {
        let Some(origin) = &letter.origin else { return Ok(0) };
        if let Some(count) = self.sources.get(&origin.topic) {
            return Ok(*count);
        }
        let default = || format!("{}-to-{}", origin.topic, self.settings.target_topic);
        let job = self.settings.job.clone().unwrap_or_else(default);
        let Some(topic) = self.cluster.find_topic(&positions::topic_name(&job))? else {
            return Err(Error::config(format!(
                "replay: letters of topic {} came from topic {}, and job {job} keeps no positions on this cluster",
                self.letters.name, origin.topic
            ))
            .hint("name the job that wrote them (job=)"));
        };
        self.sources.insert(origin.topic.clone(), topic.partitions);
        Ok(topic.partitions)
    }

    fn commit_books(&self, done: &mut Done, pending: Pending) {
        let (books, new) = (&mut done.books, pending.books);
        books.read += new.read;
        books.chosen += new.chosen;
        books.written += new.written;
        books.filtered += new.filtered;
        books.already_replayed += new.already_replayed;
        books.failed += new.failed;
        books.transactions += new.transactions;
        books.bytes += new.bytes;
        for (reason, count) in new.failed_by_reason {
            *books.failed_by_reason.entry(reason).or_default() += count;
        }
        books.failures.extend(new.failures);
        books.failures.truncate(TOLD);
        for (partition, offset) in pending.marked {
            done.marks.insert(partition, offset);
        }
        let mut passed = 0;
        for (partition, to) in pending.next {
            if let Some((next, _)) = done.open.get_mut(&partition) {
                passed += u64::try_from(to - *next).unwrap_or(0);
                *next = to;
            }
        }
        self.control.add_read(new.read);
        self.control.drop_total(passed.saturating_sub(new.read));
        self.control.add_written(new.written);
        self.control.add_dead_lettered(new.failed);
    }
}

fn fail(books: &mut ReplayResult, letter: &Letter, reason: String, detail: String) {
    books.failed += 1;
    *books.failed_by_reason.entry(reason.clone()).or_default() += 1;
    if books.failures.len() < TOLD {
        let origin = letter.origin.as_ref();
        let source = origin.map(|origin| format!("{}/{}/{}", origin.topic, origin.partition, origin.offset));
        books.failures.push(Failure {
            partition: letter.partition,
            offset: letter.offset,
            source: source.unwrap_or_default(),
            reason,
            detail,
        });
    }
}
