-- The hosts whose slabs hold most that is not live, which no purge returns.
SELECT
    host,
    name,
    version,
    resident_bytes,
    waste_bytes,
    round(waste_bytes / resident_bytes, 3) AS waste_of_resident,
    dsr,
    cause,
    cause_bytes,
    status
FROM 'fleet.parquet'
WHERE error IS NULL
ORDER BY waste_bytes DESC NULLS LAST, host
LIMIT 20;
