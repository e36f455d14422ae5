INSERT INTO bench VALUES (clock_timestamp());
