-- Private keys that sign tokens. Whoever can read one can be anybody: only auth's own role may, and where `sealed` it takes
-- the key in SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE too.
create table signing_keys (
    id text primary key,
    -- PKCS#8, or that encrypted.
    pkcs8 bytea not null,
    sealed boolean not null default false,
    -- Published from then on.
    announced_at timestamptz not null default now(),
    -- The newest key whose time has come signs; the others that are not retired verify.
    active_at timestamptz not null,
    retired_at timestamptz
);

-- What all replicas must share and nobody else may know.
create table secrets (
    name text primary key,
    value bytea not null,
    sealed boolean not null default false
);

-- One login and every refresh token that descends from it.
create table sessions (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    source text not null,
    -- With a refresh token it gives the next one; alone it gives nothing.
    secret bytea not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    -- logout, reuse, ended, disabled
    revoked_for text
);

create index sessions_end on sessions (expires_at);
create index sessions_open on sessions (user_id) where revoked_at is null;

create table refresh_tokens (
    -- SHA-256 of the token; the token itself is nowhere.
    hash bytea primary key,
    session_id uuid not null references sessions on delete cascade,
    created_at timestamptz not null default now(),
    used_at timestamptz
);

create index refresh_tokens_session on refresh_tokens (session_id);

-- Who tried to get in, from where, and how it ended.
create table login_attempts (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    tenant text not null,
    -- A mark in place of a name that nobody has: it may be a password in the wrong field.
    username text not null,
    source text not null,
    -- succeeded, wrong_password, unknown_user, disabled, limited
    outcome text not null,
    user_id uuid
);

create index login_attempts_time on login_attempts (at);
create index login_attempts_user on login_attempts (tenant, username, at);
-- From where a user has got in before.
create index login_attempts_known on login_attempts (user_id, source) where outcome = 'succeeded';

create table agent_tokens (
    -- The token's jti.
    id uuid primary key,
    tenant text not null references tenants,
    agent_id text not null,
    -- The key that signed it, which is not retired while it is good.
    key_id text not null,
    issued_by text not null,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz
);

create index agent_tokens_agent on agent_tokens (tenant, agent_id, issued_at, id);
create index agent_tokens_key on agent_tokens (key_id) where revoked_at is null;

-- Sessions and tokens that verifiers must turn away before their time, until that is over.
create table revocations (
    revision bigint generated always as identity primary key,
    -- A session's id or a token's.
    id uuid not null,
    at timestamptz not null default now(),
    expires_at timestamptz not null
);

create index revocations_end on revocations (expires_at);

-- Verifiers ask for what came after a revision: the lock lets nobody see a revision whose forerunner is still to come.
create function revoke(id uuid, expires_at timestamptz) returns void language plpgsql set search_path from current as $$
begin
    perform pg_advisory_xact_lock(5884140912063541357);
    insert into revocations (id, expires_at) values (revoke.id, revoke.expires_at);
end $$;

-- However a session, a user or a token comes to its end, verifiers are told: by triggers, so that no statement can forget it.
create function revoke_session() returns trigger language plpgsql set search_path from current as $$
begin
    -- Longer than an access token lasts.
    perform revoke(new.id, now() + interval '15 minutes');
    return null;
end $$;

create trigger sessions_revoked after update of revoked_at on sessions
    for each row when (old.revoked_at is null and new.revoked_at is not null) execute function revoke_session();

create function end_sessions() returns trigger language plpgsql set search_path from current as $$
begin
    update sessions set revoked_at = now(), revoked_for = 'disabled' where user_id = new.id and revoked_at is null;
    return null;
end $$;

create trigger users_disabled after update of disabled_at on users
    for each row when (old.disabled_at is null and new.disabled_at is not null) execute function end_sessions();

create function revoke_token() returns trigger language plpgsql set search_path from current as $$
begin
    perform revoke(new.id, new.expires_at + interval '1 minute');
    return null;
end $$;

create trigger agent_tokens_revoked after update of revoked_at on agent_tokens
    for each row when (old.revoked_at is null and new.revoked_at is not null) execute function revoke_token();
