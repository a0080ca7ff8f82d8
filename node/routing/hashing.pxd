cimport cython

ctypedef const unsigned char *bytes_t
ctypedef unsigned long long u64

# `bigint` stays a plain function: its argument is a Python int of any size.

@cython.locals(d=bytes_t, n=Py_ssize_t, i=Py_ssize_t, m=u64, golden=u64, plus=u64,
               a=u64, b=u64, c=u64, x=u64, shift=int)
cpdef u64 varchar(bytes raw)
