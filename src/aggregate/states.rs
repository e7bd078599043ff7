//! What a metric keeps of the events of each key, by the key's row; merged in any order it is the same.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::exact::Sum;
use super::reports::metric::{Measure, Metric};
use super::reports::number::Number;
use super::reports::plan::Form;
use super::visitors::Visitors;

/// What a metric takes of one event.
#[derive(Debug, Clone, PartialEq)]
pub enum Taken<'a> {
    /// Not looked at yet.
    Unasked,
    /// NULL, or unfit.
    Nothing,
    Interned(u32),
    Whole(i64),
    Number(Number),
    Text(Cow<'a, str>),
}

/// One metric of one report on one date.
#[derive(Debug, Clone)]
pub enum State {
    /// The rows' events say it.
    Count,
    Distinct(Distinct),
    Wholes(Extreme<i64>),
    Numbers(Extreme<Number>),
    Texts(Extreme<Box<str>>),
    Sums(Vec<Sum>),
}

/// Distinct values by row.
#[derive(Debug, Clone, Default)]
pub struct Distinct {
    pub seen: Visitors,
    /// Of parts of the values that were counted apart, since no other part holds them.
    pub counted: Vec<u64>,
}

/// The least or the greatest value by row.
#[derive(Debug, Clone)]
pub struct Extreme<T> {
    greatest: bool,
    pub values: Vec<Option<T>>,
}

/// An order that is exact and total.
pub trait Ordered {
    /// How it stands to another.
    fn order(&self, other: &Self) -> Ordering;
}

impl Ordered for i64 {
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

impl Ordered for Box<str> {
    fn order(&self, other: &Self) -> Ordering {
        self.cmp(other)
    }
}

impl Ordered for Number {
    fn order(&self, other: &Self) -> Ordering {
        self.compare(other)
    }
}

impl<T: Ordered> Extreme<T> {
    fn new(greatest: bool) -> Self {
        Self { greatest, values: Vec::new() }
    }

    fn take(&mut self, row: usize, value: T) {
        let held = &mut self.values[row];
        let wanted = if self.greatest { Ordering::Greater } else { Ordering::Less };
        if held.as_ref().is_none_or(|held| value.order(held) == wanted) {
            *held = Some(value);
        }
    }

    fn merge(&mut self, other: Self, rows: &[u32]) {
        for (value, row) in other.values.into_iter().zip(rows) {
            if let Some(value) = value {
                self.take(*row as usize, value);
            }
        }
    }
}

impl State {
    /// Of no event yet.
    #[must_use]
    pub fn new(metric: &Metric) -> Self {
        let greatest = matches!(metric.measure, Measure::Max(_));
        match (&metric.measure, Form::of(metric)) {
            (Measure::Count, _) | (_, None) => Self::Count,
            (Measure::Distinct { .. }, _) | (_, Some(Form::Interned(_))) => Self::Distinct(Distinct::default()),
            (Measure::Sum(_) | Measure::Mean(_), _) => Self::Sums(Vec::new()),
            (_, Some(Form::Whole(_))) => Self::Wholes(Extreme::new(greatest)),
            (_, Some(Form::Number)) => Self::Numbers(Extreme::new(greatest)),
            (_, Some(Form::Text)) => Self::Texts(Extreme::new(greatest)),
        }
    }

    /// Of the same kind, of no event.
    #[must_use]
    pub fn empty(&self) -> Self {
        match self {
            Self::Count => Self::Count,
            Self::Distinct(_) => Self::Distinct(Distinct::default()),
            Self::Wholes(extreme) => Self::Wholes(Extreme::new(extreme.greatest)),
            Self::Numbers(extreme) => Self::Numbers(Extreme::new(extreme.greatest)),
            Self::Texts(extreme) => Self::Texts(Extreme::new(extreme.greatest)),
            Self::Sums(_) => Self::Sums(Vec::new()),
        }
    }

    /// Makes room for so many rows.
    pub fn reach(&mut self, rows: usize) {
        match self {
            Self::Count | Self::Distinct(_) => {}
            Self::Wholes(extreme) => extreme.values.resize(rows, None),
            Self::Numbers(extreme) => extreme.values.resize(rows, None),
            Self::Texts(extreme) => extreme.values.resize(rows, None),
            Self::Sums(sums) => sums.resize(rows, Sum::default()),
        }
    }

    /// Takes one event's value.
    pub fn take(&mut self, row: u32, taken: &Taken<'_>) {
        let at = row as usize;
        match (self, taken) {
            (Self::Distinct(distinct), Taken::Interned(value)) => distinct.seen.add(row, *value),
            (Self::Wholes(extreme), Taken::Whole(whole)) => extreme.take(at, *whole),
            (Self::Numbers(extreme), Taken::Number(number)) => extreme.take(at, *number),
            (Self::Texts(extreme), Taken::Text(text)) => extreme.take(at, text.as_ref().into()),
            (Self::Sums(sums), Taken::Number(number)) => sums[at].add(number),
            (Self::Sums(sums), Taken::Whole(whole)) => sums[at].add(&Number::Integer(*whole)),
            _ => {}
        }
    }

    /// Adds another's, its rows and values numbered as ours are. There is room.
    pub fn merge(&mut self, other: Self, rows: &[u32], values: &[u32]) {
        match (self, other) {
            (Self::Distinct(ours), Self::Distinct(theirs)) => ours.merge(theirs, rows, values),
            (Self::Wholes(ours), Self::Wholes(theirs)) => ours.merge(theirs, rows),
            (Self::Numbers(ours), Self::Numbers(theirs)) => ours.merge(theirs, rows),
            (Self::Texts(ours), Self::Texts(theirs)) => ours.merge(theirs, rows),
            (Self::Sums(ours), Self::Sums(theirs)) => {
                theirs.iter().zip(rows).for_each(|(sum, row)| ours[*row as usize].merge(sum));
            }
            // Partials of one plan have the same states; a count keeps nothing here.
            _ => {}
        }
    }

    /// Takes what `other` keeps of its `rows` for the first rows here, but for what it has seen of distinct values.
    pub fn fill(&mut self, other: &Self, rows: &[u32]) {
        let rows = || rows.iter().map(|row| *row as usize);
        match (self, other) {
            (Self::Wholes(ours), Self::Wholes(theirs)) => {
                ours.values.iter_mut().zip(rows()).for_each(|(ours, row)| *ours = theirs.values[row]);
            }
            (Self::Numbers(ours), Self::Numbers(theirs)) => {
                ours.values.iter_mut().zip(rows()).for_each(|(ours, row)| *ours = theirs.values[row]);
            }
            (Self::Texts(ours), Self::Texts(theirs)) => {
                ours.values.iter_mut().zip(rows()).for_each(|(ours, row)| ours.clone_from(&theirs.values[row]));
            }
            (Self::Sums(ours), Self::Sums(theirs)) => {
                ours.iter_mut().zip(rows()).for_each(|(ours, row)| ours.clone_from(&theirs[row]));
            }
            (Self::Distinct(ours), Self::Distinct(theirs)) => {
                ours.counted = rows().map(|row| theirs.counted.get(row).copied().unwrap_or(0)).collect();
            }
            _ => {}
        }
    }

    /// About how many bytes it takes: asked for after every batch.
    #[must_use]
    pub fn heap(&self) -> usize {
        match self {
            Self::Count => 0,
            Self::Distinct(distinct) => distinct.seen.heap() + 8 * distinct.counted.capacity(),
            Self::Wholes(extreme) => 16 * extreme.values.capacity(),
            Self::Numbers(extreme) => size_of::<Option<Number>>() * extreme.values.capacity(),
            Self::Texts(extreme) => 64 * extreme.values.capacity(),
            Self::Sums(sums) => (size_of::<Sum>() + 64) * sums.capacity(),
        }
    }
}

impl Distinct {
    fn merge(&mut self, other: Self, rows: &[u32], values: &[u32]) {
        self.seen.merge(other.seen, rows, values);
        for (count, row) in other.counted.into_iter().zip(rows) {
            self.add(*row as usize, count);
        }
    }

    fn add(&mut self, row: usize, count: u64) {
        if self.counted.len() <= row {
            self.counted.resize(row + 1, 0);
        }
        self.counted[row] += count;
    }

    /// Counts what was seen, and forgets it: right when no other part of the same rows holds any of these values.
    pub fn settle_for_good(&mut self) {
        for (row, count) in std::mem::take(&mut self.seen).counts() {
            self.add(row as usize, count);
        }
    }

    /// How many values each row has.
    #[must_use]
    pub fn counts(&self, rows: usize) -> Vec<u64> {
        let mut counts = self.counted.clone();
        counts.resize(rows, 0);
        self.seen.counts().into_iter().for_each(|(row, count)| counts[row as usize] += count);
        counts
    }
}
