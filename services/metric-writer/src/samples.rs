//! Samples by series, as a store wants them: all that came of one series in one place.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use model::HashedMap;
use series::Series;

/// One value of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Value {
    pub(crate) time_ms: i64,
    pub(crate) value: f64,
}

/// Samples of many series.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    places: HashedMap<u32>,
    series: Vec<Row>,
    /// In the order in which they came, each with the place of its series.
    values: Vec<(u32, Value)>,
}

#[derive(Debug)]
struct Row {
    series: Arc<Series>,
    count: usize,
}

impl Samples {
    pub(crate) fn push(&mut self, series: &Arc<Series>, time_ms: i64, value: f64) {
        let place = self.place(series);
        self.series[place as usize].count += 1;
        self.values.push((place, Value { time_ms, value }));
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Where a series is; series of one hash are neighbours among the keys.
    fn place(&mut self, series: &Arc<Series>) -> u32 {
        let mut key = series.hash;
        loop {
            match self.places.entry(key) {
                Entry::Occupied(known) => {
                    let row = &self.series[*known.get() as usize];
                    if Arc::ptr_eq(&row.series, series) || row.series.has_labels_of(series) {
                        return *known.get();
                    }
                    key = key.wrapping_add(1);
                }
                Entry::Vacant(vacant) => {
                    // A batch ends long before it has so many.
                    let place = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
                    self.series.push(Row { series: Arc::clone(series), count: 0 });
                    return *vacant.insert(place);
                }
            }
        }
    }

    /// Each series with its values in order of time.
    pub(crate) fn sorted(&self) -> Sorted<'_> {
        let mut ends = Vec::with_capacity(self.series.len());
        let mut total = 0;
        for row in &self.series {
            ends.push(total);
            total += row.count;
        }
        let mut values = vec![Value { time_ms: 0, value: 0.0 }; total];
        for (place, value) in &self.values {
            let end = &mut ends[*place as usize];
            values[*end] = *value;
            *end += 1;
        }
        let order = |a: &Value, b: &Value| a.time_ms.cmp(&b.time_ms).then(a.value.total_cmp(&b.value));
        let mut melted = 0;
        for (row, end) in self.series.iter().zip(&ends) {
            let values = &mut values[end - row.count..*end];
            if !values.is_sorted_by(|a, b| order(a, b).is_le()) {
                values.sort_unstable_by(order);
            }
            let is_melted = |pair: &&[Value]| {
                pair[0].time_ms == pair[1].time_ms && pair[0].value.to_bits() != pair[1].value.to_bits()
            };
            melted += values.windows(2).filter(is_melted).count();
        }
        Sorted { series: &self.series, ends, values, melted }
    }
}

/// Samples laid out series by series.
pub(crate) struct Sorted<'a> {
    series: &'a [Row],
    ends: Vec<usize>,
    values: Vec<Value>,
    /// Samples that have a time in common with another of their series, and not the value: a store keeps one.
    pub(crate) melted: usize,
}

impl Sorted<'_> {
    /// The series with this number, and its values.
    pub(crate) fn get(&self, number: usize) -> Option<(&Series, &[Value])> {
        let (row, end) = (self.series.get(number)?, self.ends[number]);
        Some((&row.series, &self.values[end - row.count..end]))
    }
}

#[cfg(test)]
mod tests {
    use series::Type;

    use super::*;

    fn series(name: &str, hash: u64) -> Arc<Series> {
        let mut series = Series::new(Type::Gauge, [("__name__", name)]);
        series.hash = hash;
        Arc::new(series)
    }

    #[test]
    fn a_series_has_all_its_values_in_order_of_time() {
        let (up, down) = (series("up", 2), series("down", 1));
        let mut samples = Samples::default();
        samples.push(&up, 20, 0.0);
        samples.push(&down, 10, -1.5);
        // Another copy of a series is the same series; an equal hash alone is not.
        samples.push(&series("up", 2), 10, 7.0);
        samples.push(&series("other", 2), 5, 1.0);
        samples.push(&series("other", 2), 5, 0.5);
        assert_eq!(samples.len(), 5);
        let sorted = samples.sorted();
        assert_eq!(sorted.melted, 1);
        let found: Vec<_> = (0..4)
            .filter_map(|number| sorted.get(number))
            .map(|(series, values)| (series.name(), values.iter().map(|v| (v.time_ms, v.value)).collect::<Vec<_>>()))
            .collect();
        let expected =
            [("up", vec![(10, 7.0), (20, 0.0)]), ("down", vec![(10, -1.5)]), ("other", vec![(5, 0.5), (5, 1.0)])];
        assert_eq!(found, expected);
    }
}
