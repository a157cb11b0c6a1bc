//! Keeps out what a rule-engine replica still says after another has taken its shard over.
//!
//! An old epoch alone proves nothing: what the previous owner published before the takeover may reach us late, by
//! redelivery. So a fence remembers where in the stream the newer owner was first heard, and only what was published
//! behind that place by an older owner is refused.

/// The newest owner of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// Its lease's epoch.
    pub epoch: u64,
    /// The first place in the stream at which it was heard.
    pub first_sequence: u64,
}

impl Fence {
    /// Whether a message of `epoch` at `sequence` may be taken.
    #[must_use]
    pub fn admits(self, epoch: u64, sequence: u64) -> bool {
        epoch >= self.epoch || sequence < self.first_sequence
    }

    /// The fence after that message, where it changes.
    #[must_use]
    pub fn raised(current: Option<Self>, epoch: u64, sequence: u64) -> Option<Self> {
        let heard = Self { epoch, first_sequence: sequence };
        match current {
            None => Some(heard),
            Some(fence) if epoch > fence.epoch => Some(heard),
            Some(fence) if epoch == fence.epoch && sequence < fence.first_sequence => Some(heard),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: Fence = Fence { epoch: 4, first_sequence: 100 };

    #[test]
    fn the_previous_owner_is_heard_for_what_it_said_before_the_takeover() {
        assert!(FENCE.admits(3, 99));
        assert!(!FENCE.admits(3, 101));
        assert!(FENCE.admits(4, 101) && FENCE.admits(5, 101));
    }

    #[test]
    fn a_newer_owner_raises_the_fence_and_a_redelivery_corrects_its_place() {
        assert_eq!(Fence::raised(None, 4, 100), Some(FENCE));
        assert_eq!(Fence::raised(Some(FENCE), 4, 120), None);
        assert_eq!(Fence::raised(Some(FENCE), 4, 98), Some(Fence { epoch: 4, first_sequence: 98 }));
        assert_eq!(Fence::raised(Some(FENCE), 5, 130), Some(Fence { epoch: 5, first_sequence: 130 }));
        assert_eq!(Fence::raised(Some(FENCE), 3, 90), None);
    }
}
