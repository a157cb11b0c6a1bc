//! How many subjects rules are about, as the owners of lanes last said.

use proto::rules::Bound;
use sqlx::Row as _;
use time::OffsetDateTime;

use super::row::{number, signed};
use super::{LaneId, Store, Stored};
use crate::evaluation::Binding;

/// What a report goes by.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// The rules that were counted.
    pub revision: i64,
    /// Those that have been in use for so long that whatever they are about was seen; 0 where that is not known.
    pub settled: i64,
    /// What was said before of the same rule stands if it was more.
    pub keeps_more: bool,
}

impl Store {
    /// Says how many subjects rules are about, where that changed, and with which rules this was. Rules that are no longer in
    /// force are taken off the list.
    ///
    /// # Errors
    /// Postgres.
    pub async fn report(
        &self,
        lane: LaneId,
        epoch: i64,
        report: Report,
        changed: &[Binding],
    ) -> Result<(), sqlx::Error> {
        let column = |of: fn(&Binding) -> u64| changed.iter().map(|binding| signed(of(binding))).collect::<Vec<i64>>();
        self.pools
            .bounded(async {
                let mut transaction = self.work().begin().await?;
                let owned = sqlx::query(
                    "update lanes set reported_revision = $4, reported_at = now(),
                         settled_revision = greatest(settled_revision, $5)
                     where shard = $1 and lane = $2 and epoch = $3",
                )
                .bind(lane.shard())
                .bind(lane.name())
                .bind(epoch)
                .bind(report.revision)
                .bind(report.settled)
                .execute(&mut *transaction)
                .await?;
                // A newer owner says it better.
                if owned.rows_affected() == 1 && !changed.is_empty() {
                    sqlx::query(
                        "insert into bindings as kept (shard, lane, rule_id, evaluated_version, subjects, over_capacity)
                         select $1, $2, * from unnest($3::uuid[], $4::bigint[], $5::bigint[], $6::bigint[])
                         on conflict (shard, lane, rule_id) do update
                         set evaluated_version = excluded.evaluated_version, over_capacity = excluded.over_capacity,
                             subjects = case when $7 and kept.evaluated_version = excluded.evaluated_version
                                             then greatest(kept.subjects, excluded.subjects) else excluded.subjects end",
                    )
                    .bind(lane.shard())
                    .bind(lane.name())
                    .bind(changed.iter().map(|binding| binding.rule).collect::<Vec<_>>())
                    .bind(column(|binding| binding.evaluated_version))
                    .bind(column(|binding| binding.subjects))
                    .bind(column(|binding| binding.over_capacity))
                    .bind(report.keeps_more)
                    .execute(&mut *transaction)
                    .await?;
                    sqlx::query(
                        "delete from bindings where shard = $1 and lane = $2 and subjects = 0 and over_capacity = 0",
                    )
                    .bind(lane.shard())
                    .bind(lane.name())
                    .execute(&mut *transaction)
                    .await?;
                }
                transaction.commit().await
            })
            .await
    }

    /// Forgets what former owners of a lane said, on behalf of the owner under `epoch`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn forget_bindings(&self, lane: LaneId, epoch: i64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "with owned as (
                 update lanes set reported_at = null, settled_revision = least(settled_revision, coalesce(revision, 0))
                 where shard = $1 and lane = $2 and epoch = $3 returning shard, lane
             )
             delete from bindings using owned where bindings.shard = owned.shard and bindings.lane = owned.lane",
        )
        .bind(lane.shard())
        .bind(lane.name())
        .bind(epoch)
        .execute(self.work())
        .await
        .map(|_| ())
    }

    /// What a rule is about at present, in an installation of so many shards.
    ///
    /// # Errors
    /// Postgres.
    pub async fn bound(&self, rule: &Stored, shards: u16) -> fault::Result<Bound> {
        // A lane that reports in between has then counted more than it is believed to have, never less.
        let lane = crate::kinds::signal_of(&rule.kind).map(crate::signal::Signal::as_str);
        let reports = sqlx::query(
            "select count(*) as reports, min(reported_at) as oldest from lanes
             where lane = $1 and shard < $2 and reported_at is not null and reported_revision >= $3
               and settled_revision >= $4",
        )
        .bind(lane)
        .bind(i32::from(shards))
        .bind(rule.evaluated_revision)
        .bind(rule.about_revision)
        .fetch_one(&self.pools.api)
        .await
        .map_err(store::fault)?;
        let counted = sqlx::query(
            "select coalesce(sum(subjects), 0)::bigint as subjects, coalesce(sum(over_capacity), 0)::bigint as over_capacity
             from bindings where rule_id = $1 and evaluated_version = $2",
        )
        .bind(rule.id)
        .bind(signed(rule.evaluated_version))
        .fetch_one(&self.pools.api)
        .await
        .map_err(store::fault)?;
        let read = || {
            let oldest: Option<OffsetDateTime> = reports.try_get("oldest")?;
            Ok::<_, sqlx::Error>(Bound {
                count: number(&counted, "subjects")?,
                over_capacity: number(&counted, "over_capacity")?,
                complete: number(&reports, "reports")? >= u64::from(shards),
                reported_unix_nano: oldest.map_or(0, |time| u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)),
            })
        };
        read().map_err(store::fault)
    }
}
