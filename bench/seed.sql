-- What both databases hold: 10,000 finished runs in experiment 9001, 64 running ones to log to in 9002, and an empty 9003 for new ones.
BEGIN;
INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time)
SELECT id, 'bench ' || id, 'mlflow-artifacts:/' || id, 'active', 1700000000000, 1700000000000 FROM generate_series(9001, 9003) id;
CREATE TEMPORARY TABLE new_runs AS
SELECT i, lpad(to_hex(i), 32, '0') AS id, CASE WHEN i > 10000 THEN 9002 ELSE 9001 END AS experiment FROM generate_series(1, 10064) i;
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, source_version,
                  lifecycle_stage, artifact_uri, experiment_id)
SELECT id, 'run ' || i, 'UNKNOWN', '', '', 'bench', CASE WHEN i > 10000 THEN 'RUNNING' ELSE 'FINISHED' END, 1700000000000 + i * 1000,
       1700000000900 + i * 1000, '', 'active', 'mlflow-artifacts:/' || experiment || '/' || id || '/artifacts', experiment
FROM new_runs;
INSERT INTO params (key, value, run_uuid) SELECT 'param' || k, i % (k * 7), id FROM new_runs, generate_series(1, 5) k;
INSERT INTO tags (key, value, run_uuid) SELECT 'tag' || k, 'value ' || i % (k * 5), id FROM new_runs, generate_series(1, 3) k;
INSERT INTO tags (key, value, run_uuid) SELECT 'mlflow.runName', 'run ' || i, id FROM new_runs;
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT 'metric' || k, (i * k * 7919) % 10007 / 10007.0, 1700000000000 + i * 1000 + s, id, s, false
FROM new_runs, generate_series(1, 5) k, generate_series(1, 2) s;
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT key, value, timestamp, step, is_nan, run_uuid FROM metrics WHERE step = 2;
COMMIT;
ANALYZE;
