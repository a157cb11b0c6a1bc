//! Keeps the set of rules: loads what changed when a change is told, and looks every two seconds besides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lifecycle::{CancellationToken, Ready};
use sqlx::postgres::PgListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::metrics::Metrics;
use crate::rule::Rule;
use crate::rule_set::RuleSet;
use crate::store::{CHANNEL, Store};

const POLL: Duration = Duration::from_secs(2);
/// Many changes in a row are taken up together.
const GATHER: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(500);

/// What the process shows of its rules.
#[derive(Clone)]
pub struct Shown {
    /// Whether rules are loaded.
    pub loaded: Ready,
    /// Counts of them.
    pub metrics: Metrics,
}

/// Makes the set of `revision` out of `known` and what changed between them, in either direction.
///
/// # Errors
/// Postgres.
pub async fn load(store: &Store, revision: i64, known: &Arc<RuleSet>) -> anyhow::Result<Arc<RuleSet>> {
    let changes = store.changes(known.revision, revision).await.context("read changed rules")?;
    let known = Arc::clone(known);
    // Selectors and automata take time to be made.
    let making = tokio::task::spawn_blocking(move || {
        let mut rules: HashMap<Uuid, Arc<Rule>> = known.iter().map(|rule| (rule.id, Arc::clone(rule))).collect();
        for (id, version) in changes.gone {
            if rules.get(&id).is_some_and(|rule| rule.version == version) {
                rules.remove(&id);
            }
        }
        for new in changes.new {
            rules.insert(new.id, Arc::new(new.into_rule()));
        }
        Arc::new(RuleSet::new(revision, rules.into_values().collect(), &known))
    });
    making.await.context("make rules ready")
}

/// Loads the newest set, waiting for Postgres if it is away.
pub async fn first(store: &Store, shown: &Shown) -> Arc<RuleSet> {
    loop {
        let loaded = async {
            let revision = store.revision().await?;
            load(store, revision, &Arc::default()).await
        };
        match loaded.await {
            Ok(rules) => {
                tracing::info!(revision = rules.revision, rules = rules.len(), "rules loaded");
                show(&rules, shown);
                shown.loaded.up();
                return rules;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "cannot load the rules; trying again");
                shown.loaded.down("the rules could not be loaded yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Rules that only a newer version understands are a warning and no lack: this replica does all that it can do, and must be
/// ready for as long as a newer release stands beside it.
fn show(rules: &RuleSet, shown: &Shown) {
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let unknown = gauge(rules.not_understood());
    shown.metrics.rules.set(gauge(rules.len()));
    let before = shown.metrics.unknown_rules.set(unknown);
    let stranger = rules.iter().find(|rule| rule.not_understood().is_some() && !rule.document.disabled);
    if let Some(rule) = stranger {
        let reason = rule.not_understood().unwrap_or_default();
        if before != unknown {
            tracing::error!(rules = unknown, rule = %rule.id, reason, "rules are not evaluated by this version");
        }
    } else if before != 0 {
        tracing::info!("every rule is evaluated by this version");
    }
}

/// Brings `sets` up to date until the process stops.
///
/// # Errors
/// None; the signature is that of a supervised task.
pub async fn run(
    store: Store,
    sets: watch::Sender<Arc<RuleSet>>,
    shown: Shown,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut listener = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            () = told(&store, &mut listener) => {}
            () = tokio::time::sleep(POLL) => {}
        }
        let newest = async {
            let revision = store.revision().await?;
            let known = Arc::clone(&sets.borrow());
            if revision == known.revision {
                return Ok(None);
            }
            load(&store, revision, &known).await.map(Some)
        };
        match newest.await {
            Ok(None) => {}
            Ok(Some(rules)) => {
                tracing::info!(revision = rules.revision, rules = rules.len(), "rules changed");
                show(&rules, &shown);
                sets.send_replace(rules);
                tokio::time::sleep(GATHER).await;
            }
            // Readiness says that Postgres is away; the poll comes again.
            Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot look for changed rules"),
        }
    }
}

/// Returns when a change was told, or when one may have been missed. Cancelling is safe.
async fn told(store: &Store, listener: &mut Option<PgListener>) {
    let Some(connected) = listener else {
        match listen(store).await {
            Ok(connected) => *listener = Some(connected),
            Err(error) => {
                tracing::debug!(%error, "cannot listen for changed rules");
                tokio::time::sleep(RETRY).await;
            }
        }
        return;
    };
    if let Err(error) = connected.recv().await {
        tracing::warn!(%error, "no longer hearing of changed rules at once; listening again");
        *listener = None;
    }
}

async fn listen(store: &Store) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(store.work()).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use proto::rules::RuleDocument;
    use telemetry::metrics::Registry;

    use super::*;

    #[test]
    fn rules_that_only_a_newer_version_understands_are_counted() {
        let shown = Shown { loaded: Ready::unnoticed(), metrics: Metrics::register(&mut Registry::default()) };
        let stranger = Rule::new(Uuid::nil(), 1, 1, "acme".to_owned(), "tomorrow".to_owned(), RuleDocument::default());
        let with = |rules| RuleSet::new(1, rules, &RuleSet::default());
        show(&with(vec![Arc::new(stranger)]), &shown);
        assert_eq!((shown.metrics.rules.get(), shown.metrics.unknown_rules.get()), (1, 1));
        show(&with(Vec::new()), &shown);
        assert_eq!(shown.metrics.unknown_rules.get(), 0);
    }
}
