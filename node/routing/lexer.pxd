cimport cython

from node.routing cimport token_ends
from node.routing.lexed cimport Lexed

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

cdef Py_ssize_t _put(out_t o, Py_ssize_t k, bytes_t d, Py_ssize_t start, Py_ssize_t end)
