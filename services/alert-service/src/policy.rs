//! Who is told what of an alert. Pure; what comes later (silences, grouping, routes that people write) fills it in.
//!
//! Today each rule implies one [`route`] to the receivers that it names, and each of its alerts is a group of its own. What
//! a receiver knows is kept in the ledger of what was [told](Told).

pub mod route;

use std::collections::BTreeMap;

use crate::alert::Tell;
use crate::transition::{FIRING, RESOLVED};

/// What a receiver was told last of one alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// That it fires, or that it is over.
    pub state: String,
    /// By which notification.
    pub notification_id: String,
}

/// What each receiver was told last of one alert, by the receiver's name.
pub type Told = BTreeMap<String, Word>;

/// Whether what was told is that it fires.
fn knows(word: &Word) -> bool {
    word.state == FIRING
}

/// The receivers to be told, and the state that they are told, of which `told` then knows. `None` when nobody is. They are
/// told by the notification of that id.
pub fn settle(tell: &Tell, told: &mut Told, notification_id: &str) -> Option<(&'static str, Vec<String>)> {
    let knows = |name: &String| told.get(name).is_some_and(knows);
    let heard = |name: &String, of: &str| told.get(name).is_some_and(|word| word.notification_id == of);
    let (state, mut receivers): (_, Vec<String>) = match tell {
        Tell::Nobody => return None,
        Tell::Route(names) => (FIRING, names.iter().filter(|name| !knows(name)).cloned().collect()),
        Tell::WhoKnows => (RESOLVED, told.keys().filter(|name| knows(name)).cloned().collect()),
        Tell::WhoHeard(of) => (FIRING, told.keys().filter(|name| !knows(name) && heard(name, of)).cloned().collect()),
    };
    receivers.sort_unstable();
    receivers.dedup();
    let word = Word { state: state.to_owned(), notification_id: notification_id.to_owned() };
    told.extend(receivers.iter().map(|name| (name.clone(), word.clone())));
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
        let heard = |number: usize| Tell::WhoHeard(number.to_string());
        let cases = [
            // What comes to pass, and who hears what.
            (Tell::WhoKnows, None),
            (Tell::Nobody, None),
            (route.clone(), Some((FIRING, names(&["ops", "pager"])))),
            (route.clone(), None),
            (Tell::Route(names(&["chat", "ops"])), Some((FIRING, names(&["chat"])))),
            (Tell::WhoKnows, Some((RESOLVED, names(&["chat", "ops", "pager"])))),
            (Tell::WhoKnows, None),
            (heard(5), Some((FIRING, names(&["chat", "ops", "pager"])))),
            (heard(5), None),
            (Tell::WhoKnows, Some((RESOLVED, names(&["chat", "ops", "pager"])))),
            (Tell::Route(names(&["ops"])), Some((FIRING, names(&["ops"])))),
            (Tell::WhoKnows, Some((RESOLVED, names(&["ops"])))),
            // The others heard their last word long before.
            (heard(11), Some((FIRING, names(&["ops"])))),
        ];
        for (number, (tell, expected)) in cases.into_iter().enumerate() {
            assert_eq!(settle(&tell, &mut told, &number.to_string()), expected, "{number}: {tell:?}");
        }
    }
}
