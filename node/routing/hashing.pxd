cimport cython

ctypedef const unsigned char *bytes_t
ctypedef unsigned long long u64

# `bigint` stays a plain function: its argument is a Python int of any size.

cdef bytearray _FOUR

@cython.locals(m=u64, low=u64, high=u64, four=bytearray)
cpdef u64 word(u64 v)

cpdef u64 varchar(bytes raw)

@cython.locals(d=bytes_t, i=Py_ssize_t, m=u64, golden=u64, plus=u64, a=u64, b=u64, c=u64, x=u64, shift=int)
cdef u64 _hash(bytes_t raw, Py_ssize_t n)
