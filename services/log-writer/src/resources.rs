//! Which resources a selector chooses. The selector's own matching decides, on the labels that were written down when the
//! resource was seen, so that search, rules and live streams cannot disagree.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use authn::Scope;
use selector::{Op, Selector};
use serde_json::{Map, Value};
use sqlx::{Postgres, Transaction};

/// Resources that are looked up before the search begins. Where there may be more, records are read first and their
/// resources looked up as they come.
const FEW: i64 = 2_000;

/// Which records pass, by their resource.
pub(crate) enum Chosen {
    All,
    /// Those of these references.
    These(Vec<i64>),
    /// Those whose resource the selector chooses; what is known so far.
    Sifted(Arc<Selector>, HashMap<i64, bool>),
}

/// Labels as they were written down.
type Labels = HashMap<String, String>;

impl Chosen {
    /// Finds out until `end` what `selector` chooses of the tenant.
    pub(crate) async fn by(
        transaction: &mut Transaction<'_, Postgres>,
        scope: &Scope,
        selector: Selector,
        end: Instant,
    ) -> fault::Result<Self> {
        if selector.is_everything() {
            return Ok(Self::All);
        }
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "select ref, labels::text from log_resources where tenant = $1 and labels @> $2::jsonb limit $3",
        )
        .bind(scope.tenant())
        .bind(equal(&selector))
        .bind(FEW + 1)
        .fetch_all(&mut **transaction)
        .await
        .map_err(store::search_fault)?;
        let selector = Arc::new(selector);
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) > FEW {
            return Ok(Self::Sifted(selector, HashMap::new()));
        }
        let chosen = choose(&selector, rows, end).await?.filter(|(_, chosen)| *chosen);
        Ok(Self::These(chosen.map(|(reference, _)| reference).collect()))
    }

    /// References to ask for; none where that does not narrow the search.
    pub(crate) fn references(&self) -> Option<&[i64]> {
        match self {
            Self::These(references) => Some(references),
            Self::All | Self::Sifted(..) => None,
        }
    }

    /// Whether records must be asked with [`passes`](Self::passes) after [`learn`](Self::learn).
    pub(crate) fn is_sifted(&self) -> bool {
        matches!(self, Self::Sifted(..))
    }

    /// Looks up those of `references` that are not known, until `end`.
    pub(crate) async fn learn(
        &mut self,
        transaction: &mut Transaction<'_, Postgres>,
        scope: &Scope,
        references: impl Iterator<Item = i64>,
        end: Instant,
    ) -> fault::Result<()> {
        let Self::Sifted(selector, known) = self else { return Ok(()) };
        let mut unknown: Vec<i64> = references.filter(|reference| !known.contains_key(reference)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return Ok(());
        }
        let rows: Vec<(i64, String)> =
            sqlx::query_as("select ref, labels::text from log_resources where tenant = $1 and ref = any($2)")
                .bind(scope.tenant())
                .bind(unknown)
                .fetch_all(&mut **transaction)
                .await
                .map_err(store::search_fault)?;
        known.extend(choose(selector, rows, end).await?);
        Ok(())
    }

    pub(crate) fn passes(&self, reference: i64) -> bool {
        match self {
            Self::All | Self::These(_) => true,
            Self::Sifted(_, known) => known.get(&reference).copied().unwrap_or(false),
        }
    }
}

/// What the selector's equalities ask for, as an object that the labels must contain.
fn equal(selector: &Selector) -> String {
    let equalities = selector.matchers().iter().filter(|matcher| matcher.op == Op::Equal && !matcher.value.is_empty());
    let object: Map<String, Value> = equalities
        .map(|matcher| (matcher.label.clone(), Value::String(matcher.value.replace('\0', "\u{fffd}"))))
        .collect();
    Value::Object(object).to_string()
}

/// Says of each resource, by its labels, whether it is chosen.
async fn choose(
    selector: &Arc<Selector>,
    rows: Vec<(i64, String)>,
    end: Instant,
) -> fault::Result<impl Iterator<Item = (i64, bool)> + use<>> {
    let read = |(reference, labels): (i64, String)| (reference, serde_json::from_str(&labels).unwrap_or_default());
    let rows: Vec<(i64, Labels)> = rows.into_iter().map(read).collect();
    let sifted = selector.sift(rows, end, |(_, labels), label| labels.get(label).map(String::as_str)).await;
    let sifted = sifted.map_err(|_| store::too_slow())?;
    Ok(sifted.into_iter().map(|((reference, _), chosen)| (reference, chosen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equalities_with_a_value_narrow_the_look_up() {
        let selector = Selector::parse(r#"{host.name="a",env="",kind=~"host",zone!="b",kind="host"}"#).unwrap();
        assert_eq!(equal(&selector), r#"{"host_name":"a","kind":"host"}"#);
        assert_eq!(equal(&Selector::default()), "{}");
    }

    #[tokio::test]
    async fn labels_are_matched_as_they_were_written_down() {
        let chooses = async |text: &str| {
            let labels = r#"{"host_name":"web-1","kind":"host","replicas":"3","resource_id":"host-abc"}"#;
            let selector = Arc::new(Selector::parse(text).unwrap());
            let end = Instant::now() + std::time::Duration::from_secs(60);
            choose(&selector, vec![(7, labels.to_owned())], end).await.unwrap().collect::<Vec<_>>()
        };
        let chosen = chooses(r#"{host.name=~"web-.*",kind="host",replicas="3",resource_id="host-abc",env=""}"#).await;
        assert_eq!(chosen, [(7, true)]);
        assert_eq!(chooses(r#"{env!=""}"#).await, [(7, false)]);
    }
}
