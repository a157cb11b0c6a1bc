//! How the places of one process are shared among receivers, so that those that hang leave room for those that answer, and
//! one tenant for another. Pure.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::breaker::DOWN_AFTER;

/// Attempts at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In this process.
    pub all: usize,
    /// To one receiver that answers. Any other has one place.
    pub per_receiver: usize,
}

/// A receiver that has something to do, in the order of turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The receiver.
    pub receiver_id: Uuid,
    /// Whose it is.
    pub tenant: String,
    /// Failed attempts since it last answered.
    pub failures: u32,
    /// Whether its last attempt succeeded.
    pub proven: bool,
}

/// What one receiver occupies in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    /// Whose it is.
    pub tenant: String,
    /// Attempts under way.
    pub count: usize,
    /// Whether it had proven itself when they began.
    pub proven: bool,
}

/// How many attempts a receiver may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// The receiver.
    pub receiver_id: Uuid,
    /// How many.
    pub count: i32,
    /// It is down: one attempt of all processes together asks whether it is back.
    pub is_probe: bool,
}

/// Receivers that have no place left here.
#[must_use]
pub fn full(occupied: &BTreeMap<Uuid, Occupied>, limits: Limits) -> Vec<Uuid> {
    let most = |occupied: &Occupied| if occupied.proven { limits.per_receiver } else { 1 };
    occupied.iter().filter(|(_, occupied)| occupied.count >= most(occupied)).map(|(id, _)| *id).collect()
}

/// How many attempts each of `candidates` may begin. Of all places a tenant gets half at the most; of these, and of all, the
/// receivers that have not proven themselves get half together.
#[must_use]
pub fn places(candidates: &[Candidate], occupied: &BTreeMap<Uuid, Occupied>, limits: Limits) -> Vec<Places> {
    let taken = |of: &dyn Fn(&Occupied) -> bool| -> usize {
        occupied.values().filter(|occupied| of(occupied)).map(|occupied| occupied.count).sum()
    };
    let half = limits.all.div_ceil(2);
    let mut room = limits.all.saturating_sub(taken(&|_| true));
    let mut for_unproven = half.saturating_sub(taken(&|occupied| !occupied.proven));
    let mut by_tenant: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut places = Vec::new();
    for candidate in candidates {
        let is_own = |occupied: &Occupied| occupied.tenant == candidate.tenant;
        let (of_tenant, of_its_unproven) = by_tenant.entry(&candidate.tenant).or_insert_with(|| {
            let unproven = taken(&|occupied| is_own(occupied) && !occupied.proven);
            (half.saturating_sub(taken(&is_own)), half.div_ceil(2).saturating_sub(unproven))
        });
        let here = occupied.get(&candidate.receiver_id).map_or(0, |occupied| occupied.count);
        let most = if candidate.proven { limits.per_receiver } else { 1 };
        let mut count = most.saturating_sub(here).min(room).min(*of_tenant);
        if !candidate.proven {
            count = count.min(for_unproven).min(*of_its_unproven);
            for_unproven -= count;
            *of_its_unproven -= count;
        }
        room -= count;
        *of_tenant -= count;
        if count > 0 {
            let is_probe = candidate.failures >= DOWN_AFTER;
            let count = i32::try_from(count).unwrap_or(i32::MAX);
            places.push(Places { receiver_id: candidate.receiver_id, count, is_probe });
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { all: 8, per_receiver: 3 };

    fn candidate(number: u128, tenant: &str, failures: u32, proven: bool) -> Candidate {
        Candidate { receiver_id: Uuid::from_u128(number), tenant: tenant.into(), failures, proven }
    }

    fn counts(candidates: &[Candidate], occupied: &BTreeMap<Uuid, Occupied>) -> Vec<(u128, i32, bool)> {
        let places = places(candidates, occupied, LIMITS);
        places.iter().map(|place| (place.receiver_id.as_u128(), place.count, place.is_probe)).collect()
    }

    #[test]
    fn who_answers_has_several_places_and_who_is_new_or_down_has_one() {
        let all = [candidate(1, "a", 0, true), candidate(2, "b", 0, false), candidate(3, "b", 3, false)];
        assert_eq!(counts(&all, &BTreeMap::new()), [(1, 3, false), (2, 1, false), (3, 1, true)]);
    }

    #[test]
    fn receivers_that_hang_leave_half_of_the_places_to_those_that_answer() {
        let mut all: Vec<Candidate> =
            (1..=20).map(|number| candidate(number, &format!("t{number}"), 0, false)).collect();
        all.push(candidate(99, "healthy", 0, true));
        let counts = counts(&all, &BTreeMap::new());
        assert_eq!((counts.len(), counts.last()), (5, Some(&(99, 3, false))));
    }

    #[test]
    fn so_they_do_among_the_receivers_of_one_tenant() {
        let mut all: Vec<Candidate> = (1..=20).map(|number| candidate(number, "a", 0, false)).collect();
        all.push(candidate(99, "a", 0, true));
        let counts = counts(&all, &BTreeMap::new());
        assert_eq!(counts, [(1, 1, false), (2, 1, false), (99, 2, false)]);
    }

    #[test]
    fn one_tenant_leaves_half_of_the_places_to_others() {
        let all = [
            candidate(1, "a", 0, true),
            candidate(2, "a", 0, true),
            candidate(3, "a", 0, true),
            candidate(4, "b", 0, true),
        ];
        assert_eq!(counts(&all, &BTreeMap::new()), [(1, 3, false), (2, 1, false), (4, 3, false)]);
    }

    #[test]
    fn what_is_under_way_is_taken_off() {
        let busy = |count, proven| Occupied { tenant: "a".into(), count, proven };
        let occupied = BTreeMap::from([(Uuid::from_u128(1), busy(2, true)), (Uuid::from_u128(2), busy(1, false))]);
        assert_eq!(full(&occupied, LIMITS), [Uuid::from_u128(2)]);
        assert_eq!(counts(&[candidate(1, "a", 0, true)], &occupied), [(1, 1, false)]);
        let all = BTreeMap::from([(Uuid::from_u128(3), busy(8, true))]);
        assert_eq!(counts(&[candidate(1, "b", 0, true)], &all), []);
    }
}
