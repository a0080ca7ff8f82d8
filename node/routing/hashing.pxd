cimport cython

ctypedef const unsigned char *bytes_t
ctypedef unsigned long long u64

# `bigint` and `uuid` stay plain functions: their ints are Python's, of any size.

@cython.locals(d=bytes_t, n=Py_ssize_t, i=Py_ssize_t, m=u64, a=u64, b=u64, c=u64, x=u64, shift=int)
cpdef u64 varchar(bytes raw)
