-- The groups of objects (drainpins) of which most comes back if one of them goes everywhere.
SELECT
    what,
    count(DISTINCT host) AS hosts,
    sum(regions) AS regions,
    sum(alone_slabs) AS alone_slabs,
    sum(alone_bytes) AS alone_bytes,
    arg_max(host, alone_bytes) AS worst_host
FROM 'fleet-groups.parquet'
GROUP BY what
ORDER BY alone_bytes DESC, what
LIMIT 20;
