cimport cython

from node cimport database as c_database
from node.client cimport prepared as c_prepared, session as c_session, shape as c_shape
from node.pool cimport lending as c_lending
from node.routing cimport lexed as c_lexed, point as c_point
from node.server cimport connection as c_connection
from node.wire cimport batch as c_batch, requests as c_requests

cdef int _SLOW, _QUERY, _PARSE, _BIND, _SYNC, _DESCRIBE, _EXECUTE, _CLOSE, _NOTHING, _STATE_READY, _STATE_SLOW
cdef c_batch.Batch _batch
cdef dict _NOTHING_PARSED

@cython.locals(
    requests=c_requests.Requests, server=c_connection.ServerConnection, at=Py_ssize_t, end=Py_ssize_t, letter=int,
    shard=int, database=c_database.Database, pool=c_lending.Lending,
)
cpdef bint begin(c_session.Session session) except -1

cdef bint _begins(int letter) noexcept

@cython.locals(
    raw="const unsigned char *", buffer=bytes, shapes=c_shape.Shapes, shape=c_shape.Shape, point=c_point.Point,
    shard=int, number=int,
    oid="unsigned int", types=tuple, sql=bytes, known=bytes,
)
cpdef int where(c_session.Session session, Py_ssize_t at, Py_ssize_t end) except -9

@cython.locals(prepared=c_prepared.Prepared)
cpdef tuple statement_text(c_session.Session session, bytes name, dict parsed)

@cython.locals(point=c_point.Point)
cdef c_point.Point _point_of(c_session.Session session, c_shape.Shape shape, c_lexed.Lexed lexed)
cdef int _to_point(c_session.Session session, c_shape.Shape shape, c_point.Point point, int shard) except -9

@cython.locals(shard=int, found=int, letter=int, stop=Py_ssize_t, shapes=c_shape.Shapes)
cdef int _of_batch(c_session.Session session, bytes buffer, Py_ssize_t at, Py_ssize_t end) except -9
@cython.locals(shapes=c_shape.Shapes)
cdef int _of_shape(c_session.Session session, c_shape.Shape shape, object bind, tuple types=*) except -9
