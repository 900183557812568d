-- The size classes that waste most in the whole fleet, and the host where each wastes most.
SELECT
    size,
    count(DISTINCT host) AS hosts,
    sum(slabs) AS slabs,
    sum(waste_bytes) AS waste_bytes,
    sum(live) / sum(regions) AS occupancy,
    sum(drainable) / sum(slabs) AS dsr,
    arg_max(host, waste_bytes) AS worst_host,
    max(waste_bytes) AS worst_waste_bytes
FROM 'fleet-classes.parquet'
GROUP BY size
ORDER BY waste_bytes DESC NULLS LAST, size
LIMIT 20;
