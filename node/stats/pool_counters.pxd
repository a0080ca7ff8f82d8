cdef class PoolCounters:
    cdef public long long transactions, transactions_2pc, queries, assigned, bytes_received, bytes_sent
    cdef public long long parses, binds, closes, errors, prepared_evictions, server_errors
    cdef public long long cleaned, rollbacks, connects, reads, writes, auth_attempts
    cdef public long long rows_inserted, rows_updated, rows_deleted, lane_units, lane_shared, lane_coalesced
    cdef public long long lane_heavy, lane_full, lane_slow, lane_resent_slow, lane_resent_lost, lane_cancelled
    cdef public long long lane_left, lane_unread, force_closed, out_of_sync, re_synced
    cdef public double transaction_time_s, idle_transaction_time_s, query_time_s, wait_time_s, connect_time_s
