-- Live jobs only: a job that ends leaves this table in the statement that ends it, so it stays small and hot.
-- No index names state, attempt or worker: a claim stays a heap-only update.
CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    tenant text NOT NULL,
    task text NOT NULL,
    pool text NOT NULL,
    priority text NOT NULL,
    state text NOT NULL CHECK (state IN ('scheduled', 'blocked', 'queued', 'running', 'retrying')),
    series integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    suspect boolean NOT NULL DEFAULT false,
    max_attempts integer NOT NULL,
    soft_limit_seconds double precision,
    hard_limit_seconds double precision,
    blocked_on text,
    due_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    queued_at timestamptz,
    started_at timestamptz,
    worker text,
    claim text,
    tags text[] NOT NULL DEFAULT '{}',
    trace text,
    error text,
    body text NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
        autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_blocked ON jobs (pool, priority, id) WHERE blocked_on IS NOT NULL;
CREATE INDEX jobs_expiry ON jobs (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX jobs_tenant ON jobs (tenant, id);
CREATE INDEX jobs_queued ON jobs (queued_at) WHERE queued_at IS NOT NULL;

-- Ended jobs, partitioned by id, that is by the time inside a UUIDv7: retention drops partitions.
CREATE TABLE finished_jobs (
    id uuid NOT NULL,
    tenant text NOT NULL,
    task text NOT NULL,
    pool text NOT NULL,
    priority text NOT NULL,
    state text NOT NULL CHECK (state IN ('succeeded', 'dead', 'cancelled', 'expired')),
    series integer NOT NULL,
    attempt integer NOT NULL,
    failures integer NOT NULL,
    crashes integer NOT NULL,
    max_attempts integer NOT NULL,
    soft_limit_seconds double precision,
    hard_limit_seconds double precision,
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    started_at timestamptz,
    ended_at timestamptz NOT NULL,
    worker text,
    tags text[] NOT NULL,
    trace text,
    reason text,
    body text NOT NULL,
    result text,
    error text,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE INDEX finished_jobs_tenant ON finished_jobs (tenant, id);
CREATE TABLE finished_jobs_default PARTITION OF finished_jobs DEFAULT;
CREATE INDEX finished_jobs_default_age ON finished_jobs_default (ended_at);

CREATE TABLE attempts (
    job_id uuid NOT NULL,
    number integer NOT NULL,
    ended text NOT NULL,
    worker text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    error text,
    PRIMARY KEY (job_id, number)
) PARTITION BY RANGE (job_id);

CREATE TABLE attempts_default PARTITION OF attempts DEFAULT;
CREATE INDEX attempts_default_age ON attempts_default (ended_at);

-- One row for a whole batch of jobs whose messages are not known to be in the broker.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    job_ids uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX outbox_age ON outbox (created_at);

CREATE TABLE idempotency_keys (
    tenant text NOT NULL,
    key text NOT NULL,
    job_id uuid NOT NULL,
    fingerprint text NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);

CREATE TABLE workers (
    id text PRIMARY KEY,
    pool text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    processes integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz NOT NULL,
    draining boolean NOT NULL DEFAULT false,
    running integer NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    queue text NOT NULL,
    tenant text,
    job_id uuid,
    task text,
    detail text NOT NULL DEFAULT '',
    headers text,
    raw bytea,
    replayed_at timestamptz
);

CREATE INDEX dead_letters_tenant ON dead_letters (tenant, id);
CREATE INDEX dead_letters_job ON dead_letters (job_id) WHERE job_id IS NOT NULL;

CREATE TABLE tasks (
    name text PRIMARY KEY,
    spec jsonb NOT NULL,
    announced_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL DEFAULT '',
    secret_sha256 bytea NOT NULL,
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    tenant text NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    detail text NOT NULL DEFAULT ''
);

-- The second wall behind "a terminal state never changes": a replay of a dead job takes its row away, nothing changes one.
CREATE FUNCTION keep_ended_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'job % has ended as % and cannot change', OLD.id, OLD.state USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER ended_jobs_stay BEFORE UPDATE ON finished_jobs FOR EACH ROW EXECUTE FUNCTION keep_ended_jobs();

-- Make a partition for ids from `lower` on and below `upper`; `key` is the first column of the parent's key. Answers 'added', 'present',
-- 'occupied' when the default partition holds such ids already, and 'busy' when somebody reads or writes there for too long.
CREATE FUNCTION add_partition(parent text, key text, suffix text, lower uuid, upper uuid) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
DECLARE
    occupied boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('add_partition ' || parent));
    IF to_regclass(format('%I', parent || '_' || suffix)) IS NOT NULL THEN
        RETURN 'present';
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= $1 AND %I < $2)', parent || '_default', key, key)
        INTO occupied USING lower, upper;
    IF occupied THEN
        RETURN 'occupied';
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)', parent || '_' || suffix, parent, lower, upper);
    RETURN 'added';
EXCEPTION WHEN lock_not_available THEN
    RETURN 'busy';
END $$;

-- Drop a partition: 'dropped', or 'busy' when somebody reads or writes there for too long.
CREATE FUNCTION drop_partition(name text) RETURNS text LANGUAGE plpgsql SET lock_timeout = '1s' AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS %I', name);
    RETURN 'dropped';
EXCEPTION WHEN lock_not_available THEN
    RETURN 'busy';
END $$;
