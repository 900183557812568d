-- What could not be read, and why.
SELECT error_kind, count(*) AS files, any_value(host) AS one_of_them, any_value(error) AS why
FROM 'fleet.parquet'
WHERE error IS NOT NULL
GROUP BY error_kind
ORDER BY files DESC, error_kind;
