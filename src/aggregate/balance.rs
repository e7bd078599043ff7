//! Ranges of about equal work for readers elsewhere, cut where a sample of the indexes says. Whatever the cuts are, the
//! ranges together are the same documents: a bad sample costs balance, never a row.

use std::collections::BTreeSet;

use bson::oid::ObjectId;
use bson::{DateTime, Document, RawBsonRef, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Database};

use super::covered::Covered;
use super::instant;
use super::moment::Moment;
use super::ranges::{self, DateRanges};
use super::scan;
use crate::error::Result;
use crate::mongo::client::told;

/// Fewer documents than this are not worth a task of their own.
const LEAST: u64 = 20_000;
/// A task holds what it folds in memory: about so many documents at most.
const MOST: u64 = 500_000;
/// Ranges of a task: while one is folded, the server has work.
const RANGES: usize = 2;
/// Documents looked at for each range.
const LOOKS: usize = 32;
/// A sample of at most a twentieth of a collection is taken by a random walk; of more, by a scan.
const SHARE: u64 = 25;
const SECONDS: usize = 86_400;

/// What is to be read.
pub struct Source<'a> {
    pub database: &'a Database,
    pub events: &'a Collection<Document>,
    pub time_field: &'a str,
    pub covered: &'a Covered,
    pub moment: &'a Moment,
    /// `None`: every date.
    pub wanted: Option<&'a BTreeSet<i32>>,
}

/// Ranges by task, and about how many documents they are.
#[derive(Debug)]
pub struct Balanced {
    pub tasks: Vec<Vec<Document>>,
    pub documents: u64,
}

/// Where to cut ranges of times, in order: texts, and BSON dates in milliseconds since 1970.
#[derive(Debug, Default)]
pub struct Cuts {
    pub texts: Vec<String>,
    pub moments: Vec<i64>,
}

impl Cuts {
    /// Those between two texts.
    #[must_use]
    pub fn between(&self, low: &String, high: &String) -> Vec<String> {
        self.texts.iter().filter(|cut| *cut > low && *cut < high).cloned().collect()
    }

    /// Those between two BSON dates.
    #[must_use]
    pub fn moments(&self, low: DateTime, high: DateTime) -> Vec<DateTime> {
        self.moments.iter().copied().map(DateTime::from_millis).filter(|cut| *cut > low && *cut < high).collect()
    }
}

/// Some documents of the source.
#[derive(Debug, Default)]
struct Sample {
    looked: usize,
    /// Their times on the dates asked for: texts cut to seconds, and BSON dates.
    texts: Vec<String>,
    moments: Vec<i64>,
    ids: Vec<ObjectId>,
}

/// The ranges of a source for readers of which `width` run at once; `asked`: for so many tasks, whatever is there.
///
/// # Errors
/// As [`told`], and as [`ranges::all_ranges`].
pub async fn tasks(source: &Source<'_>, width: usize, asked: Option<usize>) -> Result<Balanced> {
    let whole = scan::documents(source.events, source.covered).await?;
    let of = |documents: u64| {
        let worth = usize::try_from(documents / LEAST).unwrap_or(usize::MAX).clamp(1, 2 * width.max(1));
        let bounded = usize::try_from(documents / MOST).unwrap_or(usize::MAX);
        asked.unwrap_or(worth.max(bounded)).max(1)
    };
    let sample = look(source, whole, of(whole) * RANGES * LOOKS).await?;
    let documents = match source.wanted {
        // None of the sample: as few as one of it stands for.
        Some(_) if sample.looked > 0 => whole * sample.times().max(1) as u64 / sample.looked as u64,
        _ => whole,
    };
    let tasks = of(documents);
    let pieces = tasks * RANGES;
    let ranges = match source.wanted {
        None => {
            let ranges = ranges::all_ranges(source.events, source.covered, source.moment).await?;
            cut_ids(ranges, &quantiles(sample.ids, pieces))
        }
        Some(dates) => {
            let access = ranges::access(source.database, source.events.name(), source.time_field).await?;
            let cuts = if sample.times() >= pieces * 4 {
                Cuts { texts: quantiles(sample.texts, pieces), moments: quantiles(sample.moments, pieces) }
            } else {
                clock(dates, pieces)
            };
            let of = DateRanges { field: source.time_field, dates, lists: access.lists };
            of.all(Some(&cuts)).into()
        }
    };
    let mut grouped: Vec<Vec<Document>> = vec![Vec::new(); tasks.min(ranges.len())];
    for (number, range) in ranges.into_iter().enumerate() {
        let group = number % grouped.len();
        grouped[group].push(range);
    }
    Ok(Balanced { tasks: grouped, documents })
}

/// How many documents were looked at, and how many of them are of the dates asked for, as texts and as BSON dates.
///
/// # Errors
/// As [`told`].
pub async fn share(source: &Source<'_>, whole: u64, looks: usize) -> Result<(usize, usize, usize)> {
    let sample = look(source, whole, looks).await?;
    Ok((sample.looked, sample.texts.len(), sample.moments.len()))
}

async fn look(source: &Source<'_>, whole: u64, looks: usize) -> Result<Sample> {
    let what = |error| told(format!("aggregate: sample {}", source.events.name()), error);
    let mut sample = Sample::default();
    let looks = i64::try_from((whole / SHARE).min(looks as u64)).unwrap_or(i64::MAX);
    if looks == 0 {
        return Ok(sample);
    }
    let field = source.time_field;
    let pipeline = [doc! {"$sample": {"size": looks}}, doc! {"$project": {field: 1}}];
    // Raw: a value such as {"$date": "soon"} is taken for extended JSON otherwise, and fails the cursor.
    let mut found = source.events.aggregate(pipeline).with_type::<RawDocumentBuf>().await.map_err(what)?;
    while let Some(document) = found.try_next().await.map_err(what)? {
        sample.looked += 1;
        if let Ok(id) = document.get_object_id("_id") {
            sample.ids.push(id);
        }
        let Some(dates) = source.wanted else { continue };
        match document.get(field) {
            Ok(Some(RawBsonRef::String(text))) => {
                sample.texts.extend(text.get(..19).filter(|text| on(dates, text)).map(Into::into));
            }
            Ok(Some(RawBsonRef::DateTime(time))) => {
                let millis = time.timestamp_millis();
                let date = i32::try_from(millis.div_euclid(86_400_000)).unwrap_or(i32::MAX);
                sample.moments.extend(dates.contains(&date).then_some(millis));
            }
            _ => {}
        }
    }
    // A collation may know another order of `T` and the blank than ours: of either, those that are fewer cut nothing.
    let (blanks, others): (Vec<_>, Vec<_>) = sample.texts.drain(..).partition(|text| text.as_bytes()[10] == b' ');
    sample.texts = if blanks.len() > others.len() { blanks } else { others };
    Ok(sample)
}

impl Sample {
    fn times(&self) -> usize {
        self.texts.len() + self.moments.len()
    }
}

/// Whether a text is a time of the dates, to the second, with nothing in it that a collation might order otherwise.
fn on(dates: &BTreeSet<i32>, text: &str) -> bool {
    let shape = text.bytes().zip(*b"0000-00-00T00:00:00");
    let fits = shape.enumerate().all(|(at, (byte, wanted))| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'T' if at == 10 => matches!(byte, b'T' | b' '),
        other => byte == other,
    });
    fits && instant::date(text.as_bytes().get(..10).unwrap_or_default()).is_some_and(|date| dates.contains(&date))
}

/// Where to cut into about equal pieces.
fn quantiles<T: Ord + Clone>(mut of: Vec<T>, pieces: usize) -> Vec<T> {
    of.sort_unstable();
    let mut cuts: Vec<T> = (1..pieces).filter_map(|piece| of.get(piece * of.len() / pieces).cloned()).collect();
    cuts.dedup();
    cuts
}

/// By the clock, where no sample says better.
fn clock(dates: &BTreeSet<i32>, pieces: usize) -> Cuts {
    let each = pieces.div_ceil(dates.len().max(1)).clamp(1, SECONDS);
    let of_day = |date: &i32| {
        let day = instant::text(*date);
        (1..each).map(move |piece| {
            let second = SECONDS * piece / each;
            format!("{day}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
        })
    };
    let moments = dates.iter().flat_map(|date| {
        let of_piece = move |piece| i64::try_from(1_000 * SECONDS * piece / each).unwrap_or(0);
        (1..each).map(move |piece| i64::from(*date) * 86_400_000 + of_piece(piece))
    });
    Cuts { texts: dates.iter().flat_map(of_day).collect(), moments: moments.collect() }
}

/// Cuts ranges of `_id`, whose bounds are `ObjectId`s.
fn cut_ids(ranges: impl IntoIterator<Item = Document>, cuts: &[ObjectId]) -> Vec<Document> {
    let mut all = Vec::new();
    for mut range in ranges {
        let bounds = range.get_document("_id").ok();
        let low = bounds.and_then(|bounds| bounds.get_object_id("$gte").ok());
        let high = bounds.and_then(|bounds| bounds.get_object_id("$lt").or_else(|_| bounds.get_object_id("$lte")).ok());
        if let (Some(mut low), Some(high)) = (low, high) {
            for cut in cuts.iter().copied().filter(|cut| low < *cut && *cut < high).collect::<Vec<_>>() {
                let mut piece = range.clone();
                piece.insert("_id", doc! {"$gte": low, "$lt": cut});
                all.push(piece);
                low = cut;
            }
            if let Ok(bounds) = range.get_document_mut("_id") {
                bounds.insert("$gte", low);
            }
        }
        all.push(range);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: u8) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[0] = first;
        ObjectId::from_bytes(bytes)
    }

    #[test]
    fn cut_ranges_hold_what_the_whole_one_held() {
        let whole = doc! {"_id": {"$gte": id(1), "$lte": id(9)}, "x": 1};
        let other = doc! {"_id": {"$type": [1]}};
        let cut = cut_ids([whole.clone(), other.clone()], &[id(0), id(1), id(4), id(7), id(9)]);
        let wanted = [
            doc! {"_id": {"$gte": id(1), "$lt": id(4)}, "x": 1},
            doc! {"_id": {"$gte": id(4), "$lt": id(7)}, "x": 1},
            doc! {"_id": {"$gte": id(7), "$lte": id(9)}, "x": 1},
            other,
        ];
        assert_eq!(cut, wanted);
        assert_eq!(cut_ids([whole.clone()], &[]), [whole]);
    }

    #[test]
    fn quantiles_cut_evenly_and_once() {
        assert_eq!(quantiles((0..100).rev().collect(), 4), [25, 50, 75]);
        assert_eq!(quantiles(vec![7; 100], 4), [7]);
        assert_eq!(quantiles(Vec::<i32>::new(), 4), Vec::<i32>::new());
    }

    #[test]
    fn the_clock_cuts_within_days() {
        let dates = BTreeSet::from([0, 1]);
        let cuts = clock(&dates, 4);
        assert_eq!(cuts.texts, ["1970-01-01T12:00:00", "1970-01-02T12:00:00"]);
        assert_eq!(cuts.moments, [43_200_000, 129_600_000]);
        assert!(clock(&dates, 2).texts.is_empty());
    }

    #[test]
    fn only_plain_times_cut() {
        let dates = BTreeSet::from([0]);
        for (text, fits) in [
            ("1970-01-01T10:11:12", true),
            ("1970-01-01 10:11:12", true),
            ("1970-01-02T10:11:12", false),
            ("1970-01-01t10:11:12", false),
            ("1970-01-01T9:11:12Z", false),
        ] {
            assert_eq!(on(&dates, text), fits, "{text}");
        }
    }
}
