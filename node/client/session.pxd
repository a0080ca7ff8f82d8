cimport cython

from node.client.borrowing cimport Borrowing
from node.database cimport Database
from node.pool.lending cimport Lending
from node.wire.requests cimport Requests

cdef int _BIND, _CLOSE, _DESCRIBE, _EXECUTE, _FLUSH, _FUNCTION_CALL, _PARSE, _QUERY, _SYNC, _TERMINATE
cdef int _TX_OPEN, _TX_FAILED, _IDLE, _NOTHING, _TOO_LONG, _READY, _WAITING, _SLOW, _CLOSED, _RIDING

cdef bint _begins(int letter) noexcept

cdef class Session(Borrowing):
    cdef public object id, shell, application_name, unit_role, rides, pid
    cdef public bytes secret
    cdef public double connected_at
    cdef public long long transactions_2pc, bytes_received
    cdef public object on_closed, on_resumed

    cpdef from_client(self, bytes data)
    cpdef advance(self)
    @cython.locals(requests=Requests, letter=int, database=Database, pool=Lending)
    cpdef bint begin(self)
    cpdef begin_routed(self)
    cpdef bint unlinked(self, int letter) except -1
