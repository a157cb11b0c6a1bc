//! Who is told what of an alert. Pure; what comes later (silences, grouping, routes that people write) fills it in.
//!
//! Today each rule implies one [`route`] to the receivers that it names, and each of its alerts is a group of its own. What
//! a receiver knows is kept in the ledger of what was [told](Told).

pub mod route;

use std::collections::BTreeMap;

use crate::alert::Tell;
use crate::transition::{FIRING, RESOLVED};

/// What each receiver was told last of one alert: a state by the receiver's name.
pub type Told = BTreeMap<String, String>;

/// The receivers to be told, and the state that they are told, of which `told` then knows. `None` when nobody is.
pub fn settle(tell: &Tell, told: &mut Told) -> Option<(&'static str, Vec<String>)> {
    let knows = |name: &String| told.get(name).is_some_and(|state| state == FIRING);
    let (state, mut receivers): (_, Vec<String>) = match tell {
        Tell::Nobody => return None,
        Tell::Route(names) => (FIRING, names.iter().filter(|name| !knows(name)).cloned().collect()),
        Tell::WhoKnows => (RESOLVED, told.keys().filter(|name| knows(name)).cloned().collect()),
        Tell::WhoKnew => (FIRING, told.keys().filter(|name| !knows(name)).cloned().collect()),
    };
    receivers.sort_unstable();
    receivers.dedup();
    told.extend(receivers.iter().map(|name| (name.clone(), state.to_owned())));
    (!receivers.is_empty()).then_some((state, receivers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_receiver_hears_once_that_it_fires_and_once_that_it_is_over() {
        let mut told = Told::new();
        let route = Tell::Route(names(&["pager", "ops", "ops"]));
        let cases = [
            // What comes to pass, and who hears what.
            (Tell::WhoKnows, None),
            (Tell::Nobody, None),
            (route.clone(), Some((FIRING, names(&["ops", "pager"])))),
            (route.clone(), None),
            (Tell::Route(names(&["chat", "ops"])), Some((FIRING, names(&["chat"])))),
            (Tell::WhoKnows, Some((RESOLVED, names(&["chat", "ops", "pager"])))),
            (Tell::WhoKnows, None),
            (Tell::WhoKnew, Some((FIRING, names(&["chat", "ops", "pager"])))),
            (Tell::WhoKnew, None),
            (Tell::WhoKnows, Some((RESOLVED, names(&["chat", "ops", "pager"])))),
            (Tell::Route(names(&["ops"])), Some((FIRING, names(&["ops"])))),
            (Tell::WhoKnows, Some((RESOLVED, names(&["ops"])))),
        ];
        for (number, (tell, expected)) in cases.into_iter().enumerate() {
            assert_eq!(settle(&tell, &mut told), expected, "{number}: {tell:?}");
        }
    }
}
