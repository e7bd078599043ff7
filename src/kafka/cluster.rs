//! A connection to one cluster: who it is, which topics it has, where their logs begin and end, and small readings of
//! what is already there. Events are copied elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::native::{self, Spec, TopicId, TopicSettings};
use super::settings::{self, Role};
use super::{Context, PromptConsumer, Properties, security, tls, tokens};
use crate::control::{Control, Level};
use crate::error::{Error, Result};

/// How long a server may take to answer a first question before a run ends with `ExternalError`.
const CONNECT: Duration = Duration::from_secs(9);
/// A topic just made is not known to every broker at once: asked so often, so long apart, before its absence is believed.
pub(super) const SETTLE_TRIES: u32 = 10;
pub(super) const SETTLE: Duration = Duration::from_millis(250);
/// How long one metadata question may take.
pub(crate) const ASK: Duration = Duration::from_secs(8);
/// How long a partition without a leader is asked about: one is elected when its broker is gone.
const ELECTION: Duration = Duration::from_secs(8);

/// How long a small reading may take.
const READ: Duration = Duration::from_mins(2);

/// A topic as the cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// `None` where the broker is too old to have topic ids.
    pub id: Option<String>,
    pub partitions: i32,
}

/// Where a partition's log begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionEnds {
    pub partition: i32,
    /// The first offset that retention left.
    pub start: i64,
    /// What `read_committed` can reach now.
    pub last_stable: i64,
    /// What transactions still open may yet commit.
    pub high_watermark: i64,
}

/// One cluster, asked through a client of its own.
pub struct Cluster {
    pub role: Role,
    pub properties: Properties,
    pub id: String,
    pub brokers: usize,
    pub(super) control: Arc<Control>,
    pub(crate) client: PromptConsumer,
    reading: Mutex<()>,
}

impl Cluster {
    /// Connects, or says within ten seconds why not.
    ///
    /// # Errors
    /// `Config` for refused credentials or properties, `External` for a cluster that does not answer, `Cancelled`.
    pub fn connect(properties: &Properties, role: Role, control: &Arc<Control>) -> Result<Self> {
        settings::check(properties, role)?;
        let side = role.name();
        let mut config = settings::consumer(properties, "millpond-metadata", 1024, 256);
        config.set("socket.timeout.ms", "5000");
        let client = PromptConsumer::open(config, properties, role)?;
        if let Some(property) = security::unchecked(properties) {
            control.log(Level::Warning, format!("{side}: {property} leaves the brokers' certificates unchecked"));
        }
        let bootstrap = properties.servers().to_owned();
        let deadline = Instant::now() + CONNECT;
        let mut diagnosed = false;
        loop {
            control.check(&format!("{side}: connect to {bootstrap}"))?;
            let answer = client.fetch_metadata(Some("__millpond_probe"), Duration::from_millis(700));
            // One event at a time, log lines among them.
            for _ in 0..32 {
                let _ = client.poll(Duration::ZERO);
            }
            let context: &Arc<Context> = client.context();
            if context.authentication_failed() {
                return Err(Error::config(format!("{side}: {bootstrap} refused the credentials"))
                    .hint(security::refused_hint(properties)));
            }
            // A certificate that is refused is told as that by librdkafka, or as a connection that was lost.
            let lost = context.tls_failed() || (properties.tls() && context.transport_errors() > 0);
            if answer.is_err() && lost && !diagnosed {
                diagnosed = true;
                tls::diagnose(properties, side)?;
            }
            match answer {
                Ok(metadata) => {
                    let brokers = metadata.brokers().len();
                    let id = client.client().fetch_cluster_id(ASK).ok_or_else(|| {
                        Error::external(format!("{side}: {bootstrap} did not tell its cluster id"))
                            .hint("brokers before 0.10.1 have none: millpond needs 0.11 or newer")
                    })?;
                    let (properties, control) = (properties.clone(), Arc::clone(control));
                    return Ok(Self { role, properties, id, brokers, control, client, reading: Mutex::new(()) });
                }
                Err(error) if Instant::now() > deadline => {
                    let told = context.last_error().map(|told| format!(" ({told})")).unwrap_or_default();
                    return Err(Error::external(format!("{side}: no broker of {bootstrap} answers{told}"))
                        .hint("check that the brokers run, the port, and security.protocol")
                        .because(error));
                }
                Err(_) => {}
            }
        }
    }

    /// Describes `name`, or `None` when it does not exist.
    ///
    /// # Errors
    /// `External` when the cluster does not answer, `Config` when it forbids the look.
    pub fn find_topic(&self, name: &str) -> Result<Option<Topic>> {
        let side = self.role.name();
        tokens::give(self.client.client())?;
        let metadata = self
            .client
            .fetch_metadata(Some(name), ASK)
            .map_err(|error| Error::external(format!("{side}: describe topic {name}")).because(error))?;
        let Some(found) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        if let Some(code) = found.error() {
            let code = RDKafkaErrorCode::from(code);
            return match code {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
                RDKafkaErrorCode::TopicAuthorizationFailed => {
                    Err(Error::config(format!("{side}: not allowed to see topic {name}"))
                        .hint("grant DESCRIBE and READ (source) or WRITE (target) on it"))
                }
                RDKafkaErrorCode::InvalidTopic => Err(Error::config(format!("{side}: {name} is no valid topic name"))
                    .hint("letters, digits, '.', '_' and '-', at most 249")),
                _ => Err(Error::external(format!("{side}: describe topic {name}")).because(KafkaError::Global(code))),
            };
        }
        let partitions = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
        if partitions == 0 {
            return Ok(None);
        }
        let said = native::topic_id(self.client.client(), name, ASK)
            .map_err(|said| Error::external(format!("{side}: topic id of {name}: {said}")))?;
        let id = match said {
            TopicId::Known(id) => Some(id),
            TopicId::Unsupported => None,
            // Just made (or just deleted): the brokers do not agree yet.
            TopicId::NoSuchTopic => return Ok(None),
        };
        Ok(Some(Topic { name: name.to_owned(), id, partitions }))
    }

    /// Describes `name`, which must exist.
    ///
    /// # Errors
    /// `Config` when it does not; as [`Self::find_topic`].
    pub fn topic(&self, name: &str) -> Result<Topic> {
        // A topic just made is not known to every broker yet: asked again before it is believed.
        for _ in 0..SETTLE_TRIES {
            if let Some(topic) = self.find_topic(name)? {
                return Ok(topic);
            }
            self.control.sleep("kafka: describe a topic", SETTLE)?;
        }
        Err(Error::config(format!("{}: topic {name} does not exist", self.role.name()))
            .hint("check the name and the cluster; millpond creates target topics only"))
    }

    /// The logs' starts, last stable offsets and high watermarks, from the partitions' leaders.
    ///
    /// # Errors
    /// `External` when a leader does not answer.
    pub fn ends(&self, topic: &str, partitions: &[i32]) -> Result<Vec<PartitionEnds>> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let starts = self.offsets(topic, partitions, Spec::Earliest, false)?;
        let stable = self.offsets(topic, partitions, Spec::Latest, true)?;
        let high = self.offsets(topic, partitions, Spec::Latest, false)?;
        Ok(starts
            .iter()
            .zip(&stable)
            .zip(&high)
            .map(|((start, stable), high)| PartitionEnds {
                partition: start.0,
                start: start.1,
                last_stable: stable.1,
                high_watermark: high.1.max(stable.1),
            })
            .collect())
    }

    /// One offset per partition, ascending by partition.
    ///
    /// # Errors
    /// `External` when a leader does not answer after three tries, or none is elected in eight seconds; `Cancelled`.
    pub fn offsets(&self, topic: &str, partitions: &[i32], spec: Spec, committed: bool) -> Result<Vec<(i32, i64)>> {
        let asked: Vec<_> = partitions.iter().map(|partition| (*partition, spec)).collect();
        let mut said = String::new();
        tokens::give(self.client.client())?;
        let began = Instant::now();
        for attempt in 1.. {
            match native::list_offsets(self.client.client(), topic, &asked, committed, ASK) {
                Ok(found) if found.len() == partitions.len() => return Ok(found),
                Ok(_) => "some partitions are missing in the answer".clone_into(&mut said),
                Err(error) => said = error,
            }
            // librdkafka says it in words alone where it knows of no leader to ask.
            let leaderless = said.to_lowercase().contains("leader");
            if attempt >= 3 && !(leaderless && began.elapsed() <= ELECTION) {
                break;
            }
            // Leaders move while a broker restarts; the client learns of it by asking again.
            self.control.sleep("kafka: ask log ends", Duration::from_millis(300 * attempt.min(4)))?;
        }
        Err(Error::external(format!("{}: log ends of topic {topic}: {said}", self.role.name()))
            .hint("a partition may have no leader just now: retry"))
    }

    /// The settings of topic `name`, the broker's defaults among them.
    ///
    /// # Errors
    /// `Config` when the cluster forbids it, `External` when it does not answer, `Cancelled`.
    pub fn topic_settings(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let what = || format!("{}: read the settings of topic {name}", self.role.name());
        tokens::give(self.client.client())?;
        for _ in 0..SETTLE_TRIES {
            match native::topic_settings(self.client.client(), name, ASK) {
                Ok(TopicSettings::Known(settings)) => return Ok(settings),
                Ok(TopicSettings::Forbidden) => {
                    return Err(Error::config(what()).hint("grant DESCRIBE_CONFIGS on it"));
                }
                Ok(TopicSettings::NoSuchTopic) => self.control.sleep(&what(), SETTLE)?,
                Err(said) => return Err(Error::external(format!("{}: {said}", what()))),
            }
        }
        Err(Error::external(what())
            .hint("the topic was deleted a moment ago, or the brokers do not know it yet: retry"))
    }

    /// Reads committed records of each partition from the first to the second offset, until `take` says no more. One
    /// reading at a time; others wait.
    ///
    /// # Errors
    /// `External` when a partition does not answer within two minutes, `Cancelled`, or what `take` says.
    pub fn read(
        &self,
        topic: &str,
        ranges: &[(i32, i64, i64)],
        mut take: impl FnMut(&BorrowedMessage<'_>) -> Result<bool>,
    ) -> Result<()> {
        let what = format!("{}: read topic {topic}", self.role.name());
        let mut open: BTreeMap<i32, i64> =
            ranges.iter().filter(|(_, start, end)| start < end).map(|(partition, _, end)| (*partition, *end)).collect();
        if open.is_empty() {
            return Ok(());
        }
        tokens::give(self.client.client())?;
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut assignment = TopicPartitionList::new();
        for (partition, start, _) in ranges.iter().filter(|range| open.contains_key(&range.0)) {
            // Never `Beginning`: librdkafka asks for it half a second late while it has no connection to the leader.
            assignment
                .add_partition_offset(topic, *partition, Offset::Offset(*start))
                .map_err(|error| Error::bug(what.clone()).because(error))?;
        }
        self.client.assign(&assignment).map_err(|error| Error::external(what.clone()).because(error))?;
        let read = self.read_assigned(&what, &mut open, &mut take);
        // Nothing is lost by a failure: the next assignment replaces this one.
        let _ = self.client.unassign();
        read
    }

    fn read_assigned(
        &self,
        what: &str,
        open: &mut BTreeMap<i32, i64>,
        take: &mut impl FnMut(&BorrowedMessage<'_>) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + READ;
        while !open.is_empty() {
            self.control.check(what)?;
            match self.client.poll(Duration::from_millis(100)) {
                None => {
                    if Instant::now() > deadline {
                        return Err(Error::external(format!("{what}: partitions {:?} do not answer", open.keys())));
                    }
                }
                Some(Ok(message)) => {
                    if !take(&message)? {
                        return Ok(());
                    }
                    if open.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                        open.remove(&message.partition());
                    }
                }
                // The end of a log that ends in a commit marker is told by EOF only; it fires at the last stable offset.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => {
                    if Instant::now() > deadline {
                        return Err(Error::external(what).because(error));
                    }
                }
            }
        }
        Ok(())
    }
}
