from node.client.shape cimport Shape

cdef class Prepared:
    cdef public object key, number, type_oids
    cdef public bytes sql, types, name, parse, describe
    cdef public Shape shape
    cdef public long long used_by
