//! What a transform costs alone: events per second on one core, no Kafka, no copy but the one it makes.
//!
//! `transform [SECONDS]` runs each contender over the same generated events of about 490 bytes, both raw shapes in turn, in
//! rounds that interleave, and prints one JSON object for each: `transform`, `events_per_second` (the median round's),
//! `bytes_per_event`.
#![allow(clippy::print_stdout, reason = "the answer of a program")]
#![allow(clippy::cast_precision_loss, reason = "rates of a few seconds")]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use millpond::bridge::transform::{Ready, Transform};
use millpond::json::Tape;
use serde_json::{Value, json};

const EVENTS: usize = 20_000;
const ROUNDS: usize = 5;

/// A name, and what it does with an event; whether it took it.
type Contender = (&'static str, Box<dyn FnMut(&str) -> bool>);

/// The stored shape with what trackers add, and the tracker's own.
fn event(i: usize) -> String {
    let product =
        if i.is_multiple_of(3) { format!("{}", 100_000 + i % 5_000) } else { format!("\"{}\"", 100_000 + i % 5_000) };
    let (device, minute, second) = ((i * 7_919) % 20_000, i / 60 % 60, i % 60);
    let clock = format!("2025-10-31 10:{minute:02}:{second:02}");
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36";
    let referrer = format!("https://google.com/search?q=word+{}&page={}", i % 50, i % 7);
    if i.is_multiple_of(2) {
        return format!(
            "{{\"_id\": \"{i:024x}\", \"product_id\": {product}, \"device_id\": \"device-{device:08}-abc\", \"store_id\": \"US\", \
             \"referrer_url\": \"{referrer}\", \"local_time\": \"{clock}\", \"remote_ip\": \"10.{}.3.7\", \
             \"user_agent\": \"{agent}\", \"timestamp\": \"2025-10-31T03:{minute:02}:{second:02}.{:03}Z\"}}",
            i % 250,
            i % 1_000
        );
    }
    format!(
        "{{\"_id\":\"{i:024x}\",\"id\":{i},\"time_stamp\":{},\"ip\":\"10.{}.3.7\",\"user_agent\":\"{agent}\",\
         \"resolution\":\"1920x1080\",\"user_id_db\":\"\",\"device_id\":\"device-{device:08}-abc\",\"api_version\":\"1.0\",\
         \"store_id\":\"US\",\"local_time\":\"{clock}\",\"show_recommendation\":\"false\",\"current_url\":\
         \"https://shop.example/p/{}.html\",\"referrer_url\":\"{referrer}\",\"email_address\":\"\",\"recommendation\":false,\
         \"utm_source\":false,\"utm_medium\":false,\"collection\":\"view_product_detail\",\"product_id\":{product},\
         \"option\":[{{\"option_label\":\"colour\",\"value_label\":\"red\"}}]}}",
        1_761_881_000 + i,
        i % 250,
        i % 977
    )
}

/// `PRODUCT_VIEWS` written out as a user would.
fn rules() -> Value {
    let field = |from: &[&str], kind: &str| json!({"from": from, "type": kind});
    json!({
        "product_id": field(&["product_id"], "string"),
        "device_id": field(&["device_id"], "string"),
        "store_id": field(&["store_id"], "string"),
        "referrer_url": field(&["referrer_url"], "string"),
        "local_time": field(&["local_time"], "string"),
        "remote_ip": field(&["remote_ip", "ip"], "string"),
        "timestamp": field(&["timestamp", "time_stamp"], "timestamp"),
    })
}

fn with(name: &str, rule: Value) -> Value {
    let mut fields = rules();
    fields[name] = rule;
    fields
}

fn contenders() -> Vec<(&'static str, Value)> {
    let secret = json!({"hex": "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"});
    let hashed = |function: &str| json!({"fields": with("device_id", json!({"hash": function})), "hash_key": secret});
    vec![
        ("product_views", json!({"name": "product_views"})),
        ("the same as rules", json!({"fields": rules()})),
        (
            "rules, one IP masked",
            json!({"fields": with("remote_ip", json!({"from": ["remote_ip", "ip"], "mask": "ip"}))}),
        ),
        ("rules, one hmac-sha256", hashed("hmac-sha256")),
        ("rules, one blake3", hashed("blake3")),
        (
            "rules, two filters",
            json!({"fields": rules(), "drop_if": [
            {"field": "user_agent", "contains": "bot"}, {"field": "collection", "equals": "checkout"}]}),
        ),
        ("rules, unknown kept", json!({"fields": rules(), "keep_unknown": true})),
    ]
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(5.0), |word| word.parse())?;
    let events: Vec<String> = (0..EVENTS).map(event).collect();
    let bytes = events.iter().map(String::len).sum::<usize>() as f64 / EVENTS as f64;
    let mut tape = Tape::default();
    let mut runs: Vec<Contender> = Vec::new();
    runs.push(("reading alone", Box::new(move |event: &str| tape.read(event.as_bytes()).is_ok())));
    for (name, definition) in contenders() {
        let ready = Ready::new(&Transform::read(Some(definition))?)?;
        let mut out = Vec::with_capacity(1_024);
        runs.push((
            name,
            Box::new(move |event: &str| ready.apply(event.as_bytes(), &mut out).is_ok() && !black_box(&out).is_empty()),
        ));
    }
    let share = Duration::from_secs_f64(seconds / (ROUNDS * runs.len()) as f64);
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    for _ in 0..ROUNDS {
        for ((name, run), rates) in runs.iter_mut().zip(&mut rates) {
            let (began, mut done) = (Instant::now(), 0_usize);
            while began.elapsed() < share {
                for event in &events {
                    if !run(black_box(event)) {
                        return Err(format!("{name} refused {event}").into());
                    }
                }
                done += events.len();
            }
            rates.push(done as f64 / began.elapsed().as_secs_f64());
        }
    }
    for ((name, _), mut rates) in runs.iter().zip(rates) {
        rates.sort_by(f64::total_cmp);
        let answer = json!({"transform": name, "events_per_second": rates[rates.len() / 2].round(), "bytes_per_event": bytes.round()});
        println!("{answer}");
    }
    Ok(())
}
