//! The raw limits that `benchmarks/run.py` compares with: what the drivers do when nothing is promised.
//!
//! `raw copy` is a bare librdkafka consume → produce loop: no transform, no transaction, no position. `raw produce` sends
//! bytes that are in memory already. `raw insert` sends documents that are BSON already. `raw scan` reads documents and
//! looks at none. Each gets one JSON object and prints one: `events`, `seconds`, `cpu_s`.
#![allow(clippy::print_stdout, reason = "the answer of a program")]

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bson::{Document, RawDocument, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Kafka to Kafka.
#[derive(Deserialize)]
struct Copy {
    source: BTreeMap<String, String>,
    target: BTreeMap<String, String>,
    source_topic: String,
    target_topic: String,
    #[serde(default = "lz4")]
    compression: String,
}

fn lz4() -> String {
    "lz4".into()
}

/// The events of a topic, read into memory before the clock starts, to Kafka.
#[derive(Deserialize)]
struct Produce {
    #[serde(flatten)]
    from: Copy,
    events: u64,
}

/// A file of BSON documents, one after another, to MongoDB.
#[derive(Deserialize)]
struct Insert {
    uri: String,
    database: String,
    collection: String,
    file: String,
    batch_size: usize,
    in_flight: usize,
    /// The driver's own default is to keep a record of each attempt.
    retry_writes: Option<bool>,
}

/// One date of a collection, through the index on `timestamp`.
#[derive(Deserialize)]
struct Scan {
    uri: String,
    database: String,
    collection: String,
    date: String,
    next_date: String,
    cursors: usize,
}

fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let (verb, json) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let (events, seconds) = match verb.as_str() {
        "copy" => copy(&serde_json::from_str(&json)?)?,
        "produce" => produce(&serde_json::from_str(&json)?)?,
        "insert" => runtime()?.block_on(insert(serde_json::from_str(&json)?))?,
        "scan" => runtime()?.block_on(scan(serde_json::from_str(&json)?))?,
        _ => return Err("say copy, produce, insert or scan, and a JSON object".into()),
    };
    println!("{}", serde_json::json!({"events": events, "seconds": seconds.as_secs_f64(), "cpu_s": cpu_seconds()?}));
    Ok(())
}

/// User and system time of this process so far, which Linux counts in hundredths of a second (proc(5)).
fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    Ok(f64::from(ticks.sum::<Result<u32, _>>()?) / 100.0)
}

fn client(properties: &BTreeMap<String, String>, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in properties {
        config.set(name, value);
    }
    for (name, value) in more {
        config.set(*name, *value);
    }
    config
}

fn source(job: &Copy) -> Outcome<(BaseConsumer, usize)> {
    let more = [
        ("group.id", "raw"),
        ("enable.auto.commit", "false"),
        ("enable.partition.eof", "true"),
        ("fetch.queue.backoff.ms", "5"),
    ];
    let consumer: BaseConsumer = client(&job.source, &more).create()?;
    let metadata = consumer.fetch_metadata(Some(&job.source_topic), Duration::from_secs(10))?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        assignment.add_partition_offset(&job.source_topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&assignment)?;
    Ok((consumer, partitions))
}

fn target(job: &Copy) -> Outcome<BaseProducer> {
    let more = [
        ("linger.ms", "50"),
        ("batch.size", "1000000"),
        ("batch.num.messages", "50000"),
        ("compression.type", job.compression.as_str()),
        ("queue.buffering.max.messages", "1000000"),
        ("queue.buffering.max.kbytes", "65536"),
    ];
    Ok(client(&job.target, &more).create()?)
}

/// Sends one record, and waits where the queue is full.
fn send(producer: &BaseProducer, mut record: BaseRecord<'_, [u8], [u8]>) -> Outcome<()> {
    while let Err((error, back)) = producer.send(record) {
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            return Err(error.into());
        }
        producer.poll(Duration::from_millis(20));
        record = back;
    }
    Ok(())
}

fn copy(job: &Copy) -> Outcome<(u64, Duration)> {
    let began = Instant::now();
    let ((consumer, partitions), producer) = (source(job)?, target(job)?);
    let (mut open, mut events) = (partitions, 0);
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                events += 1;
                let mut record = BaseRecord::<[u8], [u8]>::to(&job.target_topic).partition(message.partition());
                record = record.timestamp(message.timestamp().to_millis().unwrap_or(-1));
                record.key = message.key();
                record.payload = message.payload();
                send(&producer, record)?;
                if events % 1_000 == 0 {
                    producer.poll(Duration::ZERO);
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error.into()),
            None => {}
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok((events, began.elapsed()))
}

fn produce(job: &Produce) -> Outcome<(u64, Duration)> {
    let (consumer, _) = source(&job.from)?;
    let mut ready = Vec::new();
    while ready.len() < 20_000 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => ready.push(message.detach()),
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    drop(consumer);
    let began = Instant::now();
    let producer = target(&job.from)?;
    for (number, message) in (0..job.events).zip(ready.iter().cycle()) {
        let mut record = BaseRecord::<[u8], [u8]>::to(&job.from.target_topic).partition(message.partition());
        record.key = message.key();
        record.payload = message.payload();
        send(&producer, record)?;
        if number % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(60))?;
    Ok((job.events, began.elapsed()))
}

async fn insert(job: Insert) -> Outcome<(u64, Duration)> {
    let bytes = std::fs::read(&job.file)?;
    let (mut documents, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some(head) = rest.first_chunk() {
        let (document, after) = rest.split_at(usize::try_from(i32::from_le_bytes(*head))?);
        documents.push(RawDocument::from_bytes(document)?.to_owned());
        rest = after;
    }
    let began = Instant::now();
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
    let mut options = ClientOptions::parse(&job.uri).await?;
    options.retry_writes = job.retry_writes;
    let collection: Collection<RawDocumentBuf> =
        Client::with_options(options)?.database(&job.database).collection(&job.collection);
    let events = documents.len() as u64;
    let mut flying = VecDeque::new();
    for batch in documents.chunks(job.batch_size) {
        if flying.len() == job.in_flight
            && let Some(oldest) = flying.pop_front()
        {
            let oldest: tokio::task::JoinHandle<mongodb::error::Result<_>> = oldest;
            oldest.await??;
        }
        let (collection, batch, majority) = (collection.clone(), batch.to_vec(), majority.clone());
        flying.push_back(tokio::spawn(async move {
            collection.insert_many(batch).ordered(false).write_concern(majority).await.map(drop)
        }));
    }
    for last in flying {
        last.await??;
    }
    Ok((events, began.elapsed()))
}

async fn scan(job: Scan) -> Outcome<(u64, Duration)> {
    let began = Instant::now();
    let collection: Collection<Document> =
        Client::with_uri_str(&job.uri).await?.database(&job.database).collection(&job.collection);
    let hours = ["T02", "T04", "T06", "T08", "T10", "T12", "T14", "T16", "T18", "T20", "T22", "T23"];
    let mut ranges = VecDeque::new();
    let mut low = job.date.clone();
    for high in hours.iter().map(|hour| format!("{}{hour}", job.date)).chain([job.next_date.clone()]) {
        ranges.push_back(doc! {"timestamp": {"$gte": &low, "$lt": &high}});
        low = high;
    }
    let ranges = Arc::new(Mutex::new(ranges));
    let cursors: Vec<_> = (0..job.cursors)
        .map(|_| {
            let (ranges, collection) = (Arc::clone(&ranges), collection.clone());
            tokio::spawn(async move {
                let fields = doc! {"product_id": 1, "device_id": 1, "store_id": 1, "referrer_url": 1, "timestamp": 1};
                let mut read = 0;
                loop {
                    let next = ranges.lock().map_err(|_| "a cursor panicked")?.pop_front();
                    let Some(range) = next else { return Outcome::Ok(read) };
                    let mut batches =
                        collection.find(range).projection(fields.clone()).batch_size(10_000).batch().await?;
                    while let Some(batch) = batches.try_next().await? {
                        read += batch.doc_slices()?.into_iter().count() as u64;
                    }
                }
            })
        })
        .collect();
    let mut events = 0;
    for cursor in cursors {
        events += cursor.await??;
    }
    Ok((events, began.elapsed()))
}
