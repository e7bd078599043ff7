//! A topic's events beside the documents and dead letters that a sink made of them, by source and partition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{FindOptions, Hint};
use mongodb::{ClientSession, Collection, Database, SessionCursor};
use rdkafka::message::Message;
use serde::Serialize;

use super::{Audit, AuditSettings, Finding, Findings};
use crate::aggregate::covered::Covered;
use crate::aggregate::incremental::{counts, coverage::Coverage};
use crate::aggregate::moment::Moment;
use crate::aggregate::reading::has_other_writers;
use crate::bridge::inventory::{Job, JobSettings};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::json::Tape;
use crate::kafka::native::Record;
use crate::kafka::{Cluster, Role};
use crate::mongo::sources::event_id;
use crate::sink::identity::{Form, Identity};

/// A bridge's totals since the job began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub job: String,
    pub read: u64,
    pub written: u64,
    pub filtered: u64,
    pub dead_lettered: u64,
}

/// One partition of a source in the collection. What is not known is null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// `cluster/topic`.
    pub topic: String,
    pub partition: i32,
    /// The sink's position.
    pub next: i64,
    pub documents: u64,
    pub dead_letters: u64,
    /// What the bridge has written there.
    pub written: Option<u64>,
    /// Events of the topic beyond the position.
    pub ahead: Option<u64>,
    /// Events that were read and compared one by one, tombstones among them.
    pub compared: Option<u64>,
    pub tombstones: Option<u64>,
}

/// What is compared.
pub struct Stored<'a> {
    pub settings: &'a AuditSettings,
    pub database: &'a Database,
    pub events: &'a Collection<Document>,
    pub moment: &'a Moment,
    pub covered: &'a Arc<Covered>,
}

/// The topic of a source, where its cluster was given.
struct Log {
    cluster: Cluster,
    name: String,
    /// By partition: where its log begins and ends.
    ends: BTreeMap<i32, (i64, i64)>,
}

impl Stored<'_> {
    /// Compares all partitions.
    ///
    /// # Errors
    /// As [`Cluster::connect`] and [`Moment::meant`].
    pub async fn compare(&self, audit: &mut Audit, findings: &mut Findings, control: &Arc<Control>) -> Result<()> {
        let collection = format!("{}.{}", self.database.name(), self.events.name());
        if has_other_writers(self.events, self.covered, self.moment).await? {
            audit.other_writers = true;
            findings.add(Finding {
                stage: "sink",
                kind: "extra",
                text: format!("{collection} holds documents that no sink wrote"),
                ..Finding::default()
            });
        }
        let now = Coverage::of(self.covered);
        let beyond = now.beyond(self.covered.sources.keys().copied())?;
        let ahead = counts::in_moment(self.events, self.moment, doc! {"$or": &beyond}).await?;
        audit.ahead = u64::try_from(ahead).unwrap_or(0);
        let job = self.job(audit, control)?;
        for (tag, partitions) in self.covered.sources.iter().collect::<BTreeMap<_, _>>() {
            let Some(topic) = self.covered.topics.get(tag) else { continue };
            let log = tokio::task::block_in_place(|| self.log(*tag, topic, partitions.keys(), control))?;
            if log.is_none() {
                audit
                    .notes
                    .push(format!("{topic} was not compared with its events: its cluster is not given, or it is gone"));
            }
            let mut all = Vec::new();
            for (partition, next) in partitions.iter().collect::<BTreeMap<_, _>>() {
                all.push(self.counted(*tag, topic, *partition, *next, log.as_ref()).await?);
            }
            let books = log.as_ref().and_then(|log| job.as_ref().filter(|job| writes_to(job, &log.name)));
            let suspects = self.judge(books, log.as_ref(), &mut all, audit);
            if let Some(log) = &log {
                for partition in all.iter_mut().filter(|one| self.settings.deep || suspects.contains(&one.partition)) {
                    self.read(*tag, log, partition, audit, findings).await?;
                }
            }
            audit.partitions.extend(all);
        }
        Ok(())
    }

    fn job(&self, audit: &mut Audit, control: &Arc<Control>) -> Result<Option<Job>> {
        let (Some(target), Some(name)) = (&self.settings.target, &self.settings.job) else { return Ok(None) };
        let settings = JobSettings { source: None, target: target.clone(), job: name.clone() };
        let job = tokio::task::block_in_place(|| Job::open(&settings, control))?;
        let mut totals = Totals { job: name.clone(), ..Totals::default() };
        for kept in job.kept.values() {
            totals.read += kept.read;
            totals.written += kept.written;
            totals.filtered += kept.filtered;
            totals.dead_lettered += kept.dead_lettered;
        }
        audit.bridge = Some(totals);
        Ok(Some(job))
    }

    fn log<'p>(
        &self,
        tag: u32,
        topic: &str,
        partitions: impl Iterator<Item = &'p u16>,
        control: &Arc<Control>,
    ) -> Result<Option<Log>> {
        let Some(target) = &self.settings.target else { return Ok(None) };
        let cluster = Cluster::connect(target, Role::Source, control)?;
        let Some(name) = topic.strip_prefix(&format!("{}/", cluster.id)) else { return Ok(None) };
        let Some(found) = cluster.find_topic(name)? else { return Ok(None) };
        // A topic that was made again is another source.
        if crate::mongo::sources::tag(&cluster.id, found.id.as_deref(), name) != tag {
            return Ok(None);
        }
        let wanted: Vec<i32> = partitions.map(|partition| i32::from(*partition)).collect();
        let ends = cluster.ends(name, &wanted)?;
        let ends = ends.into_iter().map(|end| (end.partition, (end.start, end.last_stable))).collect();
        let name = name.to_owned();
        Ok(Some(Log { cluster, name, ends }))
    }

    /// One partition by the indexes.
    async fn counted(&self, tag: u32, topic: &str, partition: u16, next: i64, log: Option<&Log>) -> Result<Partition> {
        let number = i32::from(partition);
        let range = between(tag, number, 0, next)?;
        let letters: Collection<Document> = self.database.collection(&format!("{}_dead_letters", self.events.name()));
        let documents = counts::in_moment(self.events, self.moment, range.clone()).await?;
        let dead_letters = counts::in_moment(&letters, self.moment, range).await?;
        let mut counted = Partition {
            topic: topic.to_owned(),
            partition: number,
            next,
            documents: u64::try_from(documents).unwrap_or(0),
            dead_letters: u64::try_from(dead_letters).unwrap_or(0),
            ..Partition::default()
        };
        if let Some((log, (start, end))) = log.and_then(|log| Some((log, log.ends.get(&number)?))) {
            let mut ahead = 0;
            tokio::task::block_in_place(|| {
                log.cluster.read(&log.name, &[(number, next.max(*start), *end)], |_| {
                    ahead += 1;
                    Ok(true)
                })
            })?;
            counted.ahead = Some(ahead);
        }
        Ok(counted)
    }

    /// Compares with the bridge's books; returns the partitions that are to be read.
    fn judge(&self, job: Option<&Job>, log: Option<&Log>, all: &mut [Partition], audit: &mut Audit) -> BTreeSet<i32> {
        let everyone: BTreeSet<i32> = all.iter().map(|one| one.partition).collect();
        let Some(job) = job else {
            // Without books only reading tells.
            return if log.is_some() && self.settings.job.is_none() { everyone } else { BTreeSet::new() };
        };
        let held = |one: &Partition| one.documents + one.dead_letters + one.ahead.unwrap_or(0);
        let source = job.kept.len();
        if source == all.len() && all.iter().all(|one| job.kept(one.partition).is_some()) {
            let mut suspects = BTreeSet::new();
            for one in all.iter_mut() {
                one.written = job.kept(one.partition).map(|kept| kept.written);
                if one.written != Some(held(one)) {
                    suspects.insert(one.partition);
                }
            }
            return suspects;
        }
        let written: u64 = job.kept.values().map(|kept| kept.written).sum();
        let there: u64 = all.iter().map(held).sum();
        audit.notes.push(format!(
            "source and target have not the same partitions: all together are compared ({written} written, {there} there)"
        ));
        if written == there { BTreeSet::new() } else { everyone }
    }

    /// Each event beside its document or dead letter; the content too when everything is to be read.
    async fn read(
        &self,
        tag: u32,
        log: &Log,
        one: &mut Partition,
        audit: &mut Audit,
        findings: &mut Findings,
    ) -> Result<()> {
        let (start, end) = log.ends.get(&one.partition).copied().unwrap_or((0, 0));
        if start > 0 {
            audit.notes.push(format!(
                "{}/{}: the topic no longer has what lies below offset {start}",
                one.topic, one.partition
            ));
        }
        let end = end.min(one.next);
        let mut documents = self.documents(tag, one.partition, start, one.next).await?;
        let letters = self.letters(tag, one.partition, start, one.next).await?;
        let form = Form { tag, identity: Identity::Kafka, metadata: self.settings.metadata.clone() };
        let (mut tape, mut bson) = (Tape::default(), Vec::new());
        let (mut compared, mut tombstones) = (0, 0);
        let what = |kind, offset: i64, text: String| Finding {
            stage: "sink",
            kind,
            topic: Some(one.topic.clone()),
            partition: Some(one.partition),
            offset: Some(offset),
            text,
            ..Finding::default()
        };
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            let mut held = handle.block_on(documents.next())?;
            log.cluster.read(&log.name, &[(one.partition, start, end)], |message| {
                let offset = message.offset();
                if offset >= end {
                    return Ok(false);
                }
                compared += 1;
                while let Some((at, _)) = held.as_ref().filter(|(at, _)| *at < offset) {
                    findings.add(what("extra", *at, "a document of an event that the topic does not have".into()));
                    held = handle.block_on(documents.next())?;
                }
                if let Some((_, document)) = held.as_ref().filter(|(at, _)| *at == offset) {
                    if self.settings.deep {
                        let record = Record::of(message);
                        bson.clear();
                        let id = event_id(tag, one.partition, offset)?;
                        let same =
                            form.write(&record, &id, &mut tape, &mut bson).is_ok_and(|_| bson == document.as_bytes());
                        if !same {
                            findings.add(what(
                                "edited",
                                offset,
                                "the document is not what the sink makes of the event".into(),
                            ));
                        }
                    }
                    held = handle.block_on(documents.next())?;
                } else if message.payload().is_none() {
                    tombstones += 1;
                } else if !letters.contains(&offset) {
                    findings.add(what("lost", offset, "the event has neither document nor dead letter".into()));
                }
                Ok(true)
            })?;
            while let Some((at, _)) = &held {
                findings.add(what("extra", *at, "a document of an event that the topic does not have".into()));
                held = handle.block_on(documents.next())?;
            }
            Ok::<_, Error>(())
        })?;
        one.compared = Some(compared);
        one.tombstones = Some(tombstones);
        if start == 0
            && let Some(written) = one.written
            && written != compared + one.ahead.unwrap_or(0)
        {
            findings.add(Finding {
                stage: "bridge",
                kind: "count",
                topic: Some(one.topic.clone()),
                partition: Some(one.partition),
                text: format!(
                    "the bridge has written {written} events, the topic holds {}",
                    compared + one.ahead.unwrap_or(0)
                ),
                ..Finding::default()
            });
        }
        Ok(())
    }

    async fn letters(&self, tag: u32, partition: i32, start: i64, next: i64) -> Result<BTreeSet<i64>> {
        let letters: Collection<Document> = self.database.collection(&format!("{}_dead_letters", self.events.name()));
        let what = |error| self.moment.meant(format!("audit: read {}", letters.name()), error);
        let only_ids = FindOptions::builder().projection(doc! {"_id": 1}).hint(Hint::Keys(doc! {"_id": 1})).build();
        let found = self.moment.find(&letters, between(tag, partition, start, next)?, only_ids).await.map_err(what)?;
        let found = found.all().await.map_err(what)?;
        Ok(found.iter().filter_map(|letter| letter.get_object_id("_id").ok().map(offset_of)).collect())
    }

    async fn documents(&self, tag: u32, partition: i32, start: i64, next: i64) -> Result<Walk<'_>> {
        let what = |error| self.moment.meant(format!("audit: read {}", self.events.name()), error);
        let mut session = self.moment.session().await.map_err(what)?;
        let mut options = FindOptions::builder().sort(doc! {"_id": 1}).hint(Hint::Keys(doc! {"_id": 1})).build();
        options.read_concern = self.moment.concern();
        if !self.settings.deep {
            options.projection = Some(doc! {"_id": 1});
        }
        let raw = self.events.clone_with_type::<RawDocumentBuf>();
        let found = raw.find(between(tag, partition, start, next)?).with_options(options).session(&mut session).await;
        Ok(Walk { session, cursor: found.map_err(what)?, of: self })
    }
}

/// Documents of a partition, by offset.
struct Walk<'a> {
    session: ClientSession,
    cursor: SessionCursor<RawDocumentBuf>,
    of: &'a Stored<'a>,
}

impl Walk<'_> {
    async fn next(&mut self) -> Result<Option<(i64, RawDocumentBuf)>> {
        let found = self.cursor.next(&mut self.session).await.transpose();
        let found =
            found.map_err(|error| self.of.moment.meant(format!("audit: read {}", self.of.events.name()), error))?;
        Ok(found.map(|document| {
            let offset = document.get_object_id("_id").map(offset_of).unwrap_or_default();
            (offset, document)
        }))
    }
}

fn offset_of(id: ObjectId) -> i64 {
    let id = id.bytes();
    i64::from_be_bytes([0, 0, id[6], id[7], id[8], id[9], id[10], id[11]])
}

fn between(tag: u32, partition: i32, from: i64, to: i64) -> Result<Document> {
    let id = |offset| event_id(tag, partition, offset).map(ObjectId::from_bytes);
    Ok(doc! {"_id": {"$gte": id(from)?, "$lt": id(to)?}})
}

fn writes_to(job: &Job, topic: &str) -> bool {
    job.kept.values().any(|kept| kept.target_topic == topic)
}
