cimport cython

ctypedef const unsigned char *bytes_t
ctypedef unsigned char *out_t
ctypedef unsigned long long u64

cdef int WORD, DIGIT, DOLLAR, SPACE, QUOTE, DOUBLE, MINUS, SLASH, SEMICOLON, OPEN, CLOSE, DOT, OPERATOR, STRANGE
cdef u64 _SELECT, _INSERT, _UPDATE, _DELETE, _VALUES, _WITH, _MERGE, _CREATE, _BY, _ON, _DISTINCT, _LIMIT, _OFFSET
cdef u64 _FETCH, _HAVING, _UNION, _EXCEPT, _INTERSECT, _SET_CONFIG, _FUNCTION, _PROCEDURE, _BEGIN, _ATOMIC, _CASE, _END
cdef int _INTEGER, _NUMERIC, _STRING
cdef bytes _CLASS, _FOLD
cdef list _EMPTY, _spare
cdef Py_ssize_t _SPARE_BYTES


cdef class Lexed:
    cdef readonly bytes sql
    cdef readonly bytes shape
    cdef readonly int statements
    cdef readonly int flags
    cdef readonly bint broken
    cdef readonly list marks
    cdef readonly list comments
    cdef readonly list trace
    cdef list _cuts
    cdef Py_ssize_t _end, _first, _first_end
    cdef bint _block


cpdef Lexed lex(bytes sql, int flags=*)

@cython.locals(
    d=bytes_t, t=bytes_t, fold=bytes_t, o=out_t, n=Py_ssize_t, i=Py_ssize_t, j=Py_ssize_t, k=Py_ssize_t,
    start=Py_ssize_t, first_start=Py_ssize_t, first_end=Py_ssize_t, size=Py_ssize_t, kind=int, c=u64, low=u64,
    depth=int, ordinals=int, statements=int, routine=int, atomic=int, previous=u64, code=u64, mask=u64,
    gap=bint, cut=bint, broken=bint, fresh=bint, keep=bint, found=Lexed, buffer=bytearray,
    marks=list, cuts=list, comments=list, tokens=list, shape=object,
)
cdef Lexed _walk(bytes sql, int flags, bint tracing, bint block)

cdef list _marked(list marks, int kind, Py_ssize_t start, Py_ssize_t end)
cdef list _with(list comments, Py_ssize_t start, Py_ssize_t end)

@cython.locals(end=Py_ssize_t, point="unsigned int", c=int)
cdef bint _is_plain_escape(bytes_t d, Py_ssize_t i, Py_ssize_t n)

@cython.locals(d=bytes_t, n=Py_ssize_t, j=Py_ssize_t, broke=bint)
cdef Py_ssize_t _string_end(bytes sql, Py_ssize_t i, int mode)

@cython.locals(d=bytes_t, n=Py_ssize_t)
cdef Py_ssize_t _name_end(bytes sql, Py_ssize_t i)

@cython.locals(d=bytes_t, n=Py_ssize_t, depth=int)
cdef Py_ssize_t _comment_end(bytes sql, Py_ssize_t i)

@cython.locals(d=bytes_t, n=Py_ssize_t, j=Py_ssize_t, c=int)
cdef Py_ssize_t _digits_end(bytes sql, Py_ssize_t i, int base)

@cython.locals(d=bytes_t, n=Py_ssize_t, j=Py_ssize_t, low=int, base=int, numeric=bint)
cdef Py_ssize_t _number_end(bytes sql, Py_ssize_t i)

cdef Py_ssize_t _put(out_t o, Py_ssize_t k, bytes_t d, Py_ssize_t start, Py_ssize_t end)
