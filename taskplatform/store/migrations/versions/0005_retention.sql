-- How far retention has come with a partition; `cutoffs` are those of a sweep that has not ended.
CREATE TABLE retention_parts (
    part text PRIMARY KEY,
    policy text NOT NULL DEFAULT '',
    look_at timestamptz NOT NULL DEFAULT now(),
    cutoffs text
);

-- A day is surveyed without a lock. Its partition gets a trigger first, so that the drop, which has the lock, knows whether a job has
-- ended there since: only jobs as old as that day can, so it is fired now and then and never on a new day.
CREATE TABLE late_rows (
    part text NOT NULL
);

CREATE FUNCTION note_late_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO late_rows (part) VALUES (TG_ARGV[0]);
    RETURN NULL;
END $$;

-- Drop the partitions of one day: 'dropped'; 'watched' when the day was not watched before, so that it has to be asked again;
-- 'wanted' when more than `most` jobs are not named by the cutoffs, 'late' when one has ended there meanwhile, and 'busy' when
-- somebody reads or writes there for too long: then nothing has changed. Up to `most` jobs, their attempts, and the attempts
-- of live jobs move into the default partition.
CREATE FUNCTION drop_day(day text, lower uuid, upper uuid, tenants text[], tasks text[], deads boolean[], befores timestamptz[],
    most integer) RETURNS text LANGUAGE plpgsql SET lock_timeout = '200ms' AS $$
DECLARE
    ended text := 'finished_jobs_' || day;
    tried text := 'attempts_' || day;
    wanted uuid[] := '{}';
BEGIN
    IF to_regclass(ended) IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(ended) AND tgname = 'late_rows') THEN
            EXECUTE format('CREATE TRIGGER late_rows AFTER INSERT ON %I FOR EACH ROW EXECUTE FUNCTION note_late_row(%L)', ended, day);
            RETURN 'watched';
        END IF;
        DELETE FROM late_rows WHERE part = day;
        EXECUTE format('SELECT array_agg(id) FROM (
            SELECT f.id FROM %I f LEFT JOIN unnest($1, $2, $3, $4) AS c (tenant, task, dead, before)
                ON c.tenant = f.tenant AND c.task = f.task AND c.dead = (f.state = ''dead'')
            WHERE (f.ended_at < c.before) IS NOT TRUE LIMIT $5) AS w', ended)
            INTO wanted USING tenants, tasks, deads, befores, most + 1;
        IF cardinality(wanted) > most THEN
            RETURN 'wanted';
        END IF;
    END IF;
    -- The parents first, as everybody else does: whoever ends a job has locked them when it learns which partition it needs. Others
    -- queue up behind this lock, so it waits for less time than a deadlock takes to be noticed.
    LOCK TABLE ONLY finished_jobs, ONLY attempts IN ACCESS EXCLUSIVE MODE;
    IF to_regclass(ended) IS NOT NULL THEN
        IF EXISTS (SELECT FROM late_rows WHERE part = day) THEN
            RETURN 'late';
        END IF;
        EXECUTE format('ALTER TABLE finished_jobs DETACH PARTITION %I', ended);
        EXECUTE format('INSERT INTO finished_jobs SELECT * FROM %I WHERE id = ANY ($1)', ended) USING wanted;
        EXECUTE format('DROP TABLE %I', ended);
    END IF;
    IF to_regclass(tried) IS NOT NULL THEN
        EXECUTE format('ALTER TABLE attempts DETACH PARTITION %I', tried);
        EXECUTE format('INSERT INTO attempts SELECT * FROM %I WHERE job_id IN (SELECT id FROM finished_jobs WHERE id >= $1 AND id < $2
            UNION ALL SELECT id FROM jobs WHERE id >= $1 AND id < $2)', tried) USING lower, upper;
        EXECUTE format('DROP TABLE %I', tried);
    END IF;
    DELETE FROM retention_parts WHERE part = day;
    RETURN 'dropped';
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
    RETURN 'busy';
END $$;
