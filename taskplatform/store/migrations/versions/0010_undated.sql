-- The ids of plain Celery jobs hold no time. They are spread evenly over all ids, so that every day of ids has some when there are millions
-- of them, and what the default partition holds of a day has to be moved out when the day gets a partition of its own. From 2^42 ms on,
-- the year 2109, there are no others, and 63 of 64 of them lie there: these get a partition of their own, within the default one.
-- What is left in the default one can be looked through while others wait for it.
DO $$
DECLARE
    undated CONSTANT uuid := '04000000-0000-0000-0000-000000000000';
    parent text;
    key text;
    old text;
    new text;
    index text;
BEGIN
    LOCK TABLE ONLY finished_jobs, ONLY attempts IN ACCESS EXCLUSIVE MODE;
    FOR parent, key IN VALUES ('finished_jobs', 'id'), ('attempts', 'job_id') LOOP
        old := parent || '_default';
        new := parent || '_undated';
        EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, old);
        FOR index IN SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = old::regclass LOOP
            EXECUTE format('ALTER INDEX %I RENAME TO %I', index, replace(index, old, new));
        END LOOP;
        EXECUTE format('ALTER TABLE %I RENAME TO %I', old, new);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT PARTITION BY RANGE (%I)', old, parent, key);
        EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_stray', old);
        EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I < %L RETURNING *) INSERT INTO %I SELECT * FROM moved', new, key, undated, old);
        EXECUTE format('ALTER TABLE %I ADD CONSTRAINT %I CHECK (%I >= %L)', new, new || '_check', key, undated);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (MAXVALUE)', old, new, undated);
        EXECUTE format('CREATE INDEX %I ON %I (ended_at)', old || '_age', old);
    END LOOP;
END $$;

-- Make a partition for ids from `lower` on and below `upper`; `key` is the first column of the parent's key. What the default partition
-- holds of them moves into it. Answers 'added', 'present', 'occupied' when that is more than 10,000 rows, and 'busy' when somebody reads or
-- writes there for too long. Whoever writes to other partitions goes on meanwhile, as the parent is not locked against that; whoever
-- needs the default one, as every search by id does, waits while it is looked through. It waits for each lock for less time than a deadlock
-- takes to be noticed, so that it steps back and nobody who writes is undone.
CREATE OR REPLACE FUNCTION add_partition(parent text, key text, suffix text, lower uuid, upper uuid) RETURNS text
LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    most CONSTANT integer := 10000;
    fallback text := parent || '_default';
    made text := parent || '_' || suffix;
    occupied boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('add_partition ' || parent));
    IF to_regclass(format('%I', made)) IS NOT NULL THEN
        RETURN 'present';
    END IF;
    EXECUTE format('SELECT count(*) > $3 FROM (SELECT FROM %I WHERE %I >= $1 AND %I < $2 LIMIT $3 + 1) AS found', fallback, key, key)
        INTO occupied USING lower, upper, most;
    IF occupied THEN
        RETURN 'occupied';
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', made, parent);
    EXECUTE format('LOCK TABLE ONLY %I IN SHARE UPDATE EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', fallback);
    EXECUTE format('WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %I < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved', fallback, key, key, made)
        USING lower, upper;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, made, lower, upper);
    RETURN 'added';
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN 'busy';
END $$;

-- It compares each job of a day with all cutoffs: of thousands, only a hash join does that once.
ALTER FUNCTION drop_day(text, uuid, uuid, text[], text[], boolean[], timestamptz[], integer) SET enable_hashjoin = on;
ALTER FUNCTION drop_day(text, uuid, uuid, text[], text[], boolean[], timestamptz[], integer) SET enable_seqscan = on;

-- Behind which job a sweep goes on. The one row of `archiving` says that ended jobs go into an archive before they are forgotten.
ALTER TABLE retention_parts ADD COLUMN behind_ended timestamptz, ADD COLUMN behind_id uuid;
CREATE TABLE archiving (
    always boolean PRIMARY KEY DEFAULT true CHECK (always),
    since timestamptz NOT NULL DEFAULT now()
);
