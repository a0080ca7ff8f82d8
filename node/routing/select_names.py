"""Functions that a SELECT over several shards must treat specially, by name. Lists, no logic.

They complete the catalog (which knows the user's functions) and stand in for it before it was read.
"""

# ruff: noqa: SIM905 - a list of words reads better than a list of literals
from __future__ import annotations

from typing import Final

# Partial results of these can be combined exactly (for the types that node.gather.aggregate accepts).
MERGED: Final = {
    "count": "count",
    "sum": "sum",
    "avg": "avg",
    "min": "min",
    "max": "max",
    # false < true: the smallest of all is "and", the largest is "or".
    "bool_and": "min",
    "every": "min",
    "bool_or": "max",
    "bit_and": "bit_and",
    "bit_or": "bit_or",
    "bit_xor": "bit_xor",
    "variance": "variance",
    "var_samp": "var_samp",
    "var_pop": "var_pop",
    "stddev": "stddev",
    "stddev_samp": "stddev_samp",
    "stddev_pop": "stddev_pop",
}
SPREADS: Final = frozenset(("variance", "var_samp", "var_pop", "stddev", "stddev_samp", "stddev_pop"))
OTHER_AGGREGATES: Final = frozenset(
    """any_value array_agg string_agg json_agg jsonb_agg json_object_agg jsonb_object_agg json_agg_strict
    jsonb_agg_strict json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict xmlagg range_agg
    range_intersect_agg corr covar_pop covar_samp regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope
    regr_sxx regr_sxy regr_syy mode percentile_cont percentile_disc rank dense_rank percent_rank cume_dist
    grouping""".split()
)
# One answer per transaction, but each server has its own clock: rows of different shards would disagree.
CLOCKS: Final = frozenset(("now", "transaction_timestamp", "statement_timestamp"))
# Each server would speak of itself.
PER_SERVER: Final = frozenset(
    """nextval currval lastval setval pg_backend_pid inet_server_addr inet_server_port inet_client_addr
    inet_client_port version current_database current_schema current_schemas txid_current txid_current_snapshot
    txid_current_if_assigned txid_snapshot_xmin txid_snapshot_xmax pg_current_xact_id pg_current_snapshot
    pg_current_xact_id_if_assigned pg_current_wal_lsn pg_current_wal_insert_lsn pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_is_in_recovery pg_postmaster_start_time pg_conf_load_time pg_relation_size
    pg_table_size pg_total_relation_size pg_indexes_size pg_database_size pg_relation_filenode
    pg_relation_filepath pg_advisory_lock pg_advisory_xact_lock pg_try_advisory_lock pg_try_advisory_xact_lock
    pg_advisory_unlock pg_advisory_unlock_all pg_advisory_lock_shared pg_notify pg_cancel_backend
    pg_terminate_backend pg_my_temp_schema pg_listening_channels pg_export_snapshot pg_trigger_depth lo_create
    lo_import lo_export lo_unlink lo_put lo_get lo_from_bytea dblink dblink_exec query_to_xml table_to_xml
    cursor_to_xml ts_stat pg_logical_slot_get_changes pg_stat_reset set_config pg_sequence_last_value""".split()
)
VOLATILE: Final = frozenset(
    """random random_normal setseed gen_random_uuid uuidv4 uuidv7 uuid_generate_v1 uuid_generate_v1mc
    uuid_generate_v4 clock_timestamp timeofday pg_sleep pg_sleep_for pg_sleep_until gen_random_bytes gen_salt""".split()
)
# Known before the catalog is: functions of the same arguments only (or of settings that all shards share).
HARMLESS: Final = frozenset(
    """abs acos age array_append array_cat array_length array_lower array_position array_prepend array_remove
    array_replace array_to_string array_upper ascii asin atan atan2 bit_length btrim cardinality cbrt ceil ceiling
    char_length character_length chr concat concat_ws cos date date_bin date_part date_trunc decode degrees div
    encode exp extract factorial floor format gcd generate_series generate_subscripts greatest initcap
    is_normalized isfinite json_array_elements json_array_elements_text json_array_length json_build_array
    json_build_object json_each json_each_text json_extract_path json_extract_path_text json_typeof
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object
    jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_path_exists jsonb_path_query
    jsonb_pretty jsonb_set jsonb_typeof justify_days justify_hours justify_interval lcm least left length ln log
    log10 lower lpad ltrim make_date make_interval make_time make_timestamp make_timestamptz md5 min_scale mod
    normalize num_nonnulls num_nulls octet_length overlaps overlay pi position pow power quote_ident quote_literal
    radians regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array
    regexp_split_to_table regexp_substr repeat replace reverse right round row_number row_to_json rpad rtrim scale
    sha224 sha256 sha384 sha512 sign sin split_part sqrt starts_with string_to_array string_to_table strpos
    substr substring tan timezone to_char to_date to_hex to_json to_jsonb to_number to_timestamp to_tsquery
    to_tsvector translate trim trim_array trim_scale trunc ts_rank unnest upper width_bucket like_escape
    current_setting lower_inc upper_inc websearch_to_tsquery plainto_tsquery phraseto_tsquery ts_headline
    ts_rank_cd pg_typeof pg_column_size jsonb_path_query_array jsonb_path_query_first array_to_json isempty
    rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value""".split()
)
SYSTEM_COLUMNS: Final = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"))
BYTEWISE_COLLATIONS: Final = frozenset(("C", "POSIX", "ucs_basic", "pg_c_utf8"))
# PostgreSQL's own functions that read tables or run queries.
READERS: Final = frozenset(("ts_stat", "ts_rewrite")) | {
    f"{kind}_to_{what}"
    for kind in ("table", "query", "cursor", "schema", "database")
    for what in ("xml", "xmlschema", "xml_and_xmlschema")
}
# The commoner array types, by OID; those of users are known by their names.
ARRAY_TYPES: Final = frozenset(
    (199, 629, 651, 719, 775, 791, 1000, 1001, 1002, 1003, 1005, 1007, 1009, 1014, 1015, 1016, 1017, 1018, 1020, 1021)
    + (1022, 1027, 1028, 1040, 1041, 1115, 1182, 1183, 1185, 1187, 1231, 1270, 1561, 1563, 2951, 3643, 3807, 3905, 3907)
    + (3909, 3911, 3913, 3927, 4073)
)
