-- Why memory is resident, in the whole fleet: how much would go, and by which remedy.
SELECT
    cause,
    remedy,
    count(DISTINCT host) AS hosts,
    sum(bytes) AS bytes,
    sum(remedy_bytes) AS remedy_bytes,
    arg_max(host, bytes) AS worst_host,
    max(bytes) AS worst_bytes
FROM 'fleet-causes.parquet'
WHERE cause <> 'small_process'
GROUP BY cause, remedy
ORDER BY bytes DESC, cause, remedy
LIMIT 20;
