-- Rules with their history, and what evaluating them has come to.

-- Rises by one with every change of any rule; its row lock puts changes in one order.
create table revision (number bigint not null);
insert into revision values (0);

-- One row a version. A version was in force in revisions since_revision <= r < until_revision, so that a lane's next
-- owner can read on with the rules that its snapshot was made with.
create table rule_versions (
    rule_id uuid not null,
    version bigint not null,
    tenant text not null,
    name text not null,
    -- metric, log, ...: a version of this service that does not know a kind carries its rules and their state as they are.
    kind text not null,
    -- The whole document, sightline.rules.v1.RuleDocument.
    document bytea not null,
    -- The version, and the revision, in which what decides (and not only how it is shown) was last changed.
    evaluated_version bigint not null,
    evaluated_revision bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    since_revision bigint not null,
    -- Null: in force.
    until_revision bigint,
    retired_at timestamptz,
    -- The revision in which it was last changed which subjects the rule is about.
    about_revision bigint not null default 0,
    primary key (rule_id, version)
);

create unique index rules_by_name on rule_versions (tenant, name) where until_revision is null;
create unique index rules_by_id on rule_versions (tenant, rule_id) where until_revision is null;
create index retired_versions on rule_versions (retired_at) where until_revision is not null;
-- Replicas read what changed between two revisions, never everything.
create index versions_by_begin on rule_versions (since_revision);
create index versions_by_end on rule_versions (until_revision) where until_revision is not null;

-- What makes a repeated request answer the first rule.
create table idempotency_keys (
    tenant text not null,
    subject text not null,
    key text not null,
    -- SHA-256 of the document.
    document_hash bytea not null,
    rule_id uuid not null,
    created_at timestamptz not null default now(),
    primary key (tenant, subject, key)
);

create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Who shares the shards.
create table replicas (
    id uuid primary key,
    seen_at timestamptz not null
);

-- Where the evaluation of each lane (one signal stream of a shard) stands. Written only under the shard's lease; an older
-- epoch is refused.
create table lanes (
    shard integer not null,
    -- metrics or logs.
    lane text not null,
    epoch bigint not null,
    -- Owners that began from this snapshot. Above 1, one has ended without a newer one: then each message is noted before it
    -- is touched.
    starts integer not null default 0,
    -- Null until the first snapshot: the rules that everything up to the sequence was evaluated with (see `switches`).
    revision bigint,
    sequence bigint not null default 0,
    published_unix_nano bigint not null default 0,
    -- The lane's own time, and the number of its last decision.
    stream_unix_nano bigint not null default 0,
    decisions bigint not null default 0,
    -- For each part of the state, the generation that belongs to this snapshot; 0 where the part is empty.
    generations bigint[] not null default '{}',
    saved_at timestamptz,
    -- When, and with which rules, the owner last said what rules are about.
    reported_revision bigint not null default 0,
    reported_at timestamptz,
    -- Rules that have been in use for so long that whatever they are about was seen.
    settled_revision bigint not null default 0,
    primary key (shard, lane)
);

-- The state, in parts. A part of a kind that a version does not know stays as it is.
create table lane_parts (
    shard integer not null,
    lane text not null,
    -- subjects, batches.
    kind text not null,
    part integer not null,
    generation bigint not null,
    -- Zstandard over protobuf, see services/rule-engine/src/saved.rs.
    content bytea not null,
    primary key (shard, lane, kind, part, generation)
);

-- Changes of rules since the snapshot: everything behind this sequence is evaluated with that revision.
create table switches (
    shard integer not null,
    lane text not null,
    sequence bigint not null,
    revision bigint not null,
    primary key (shard, lane, sequence, revision)
);

-- Messages whose evaluation did not end, by the owner that tried. After two, a message is set aside.
create table attempts (
    shard integer not null,
    lane text not null,
    sequence bigint not null,
    published_unix_nano bigint not null,
    epoch bigint not null,
    reason text not null,
    at timestamptz not null default now(),
    primary key (shard, lane, sequence, published_unix_nano, epoch)
);

-- How many subjects each rule is about, as the owners of lanes last said.
create table bindings (
    shard integer not null,
    lane text not null,
    rule_id uuid not null,
    evaluated_version bigint not null,
    subjects bigint not null,
    over_capacity bigint not null,
    primary key (shard, lane, rule_id)
);

create index bindings_by_rule on bindings (rule_id);
