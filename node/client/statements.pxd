cimport cython

from node.client.prepared cimport Prepared
from node.client.services cimport Services
from node.client.shape cimport Shape
from node.database cimport Database
from node.pool.rider cimport Rider
from node.pool.lending cimport Lending
from node.server.connection cimport ServerConnection
from node.stats.pool_counters cimport PoolCounters
from node.wire.pipeline cimport Pipeline

cdef int _BIND, _CLOSE, _DESCRIBE, _PARSE

cdef Py_ssize_t _zero(const unsigned char *p, Py_ssize_t at, Py_ssize_t end) noexcept

cdef class Statements(Rider):
    cdef public Services services
    cdef public Database database
    cdef public object write, parameters, pin
    cdef public dict prepared
    cdef public object doubtful, unit_names, unit_parsed
    cdef public int forget_statements
    cdef public bytes unnamed_parse
    cdef public object unnamed_on
    cdef public bint managed

    cpdef bint special(self, Shape shape, int letter)
    @cython.locals(raw="const unsigned char *", name_end=Py_ssize_t, sql_end=Py_ssize_t, named=bint, sql=bytes,
                   shape=Shape, pipeline=Pipeline, pool=Lending, counters=PoolCounters, name=bytes, prepared=Prepared,
                   ahead=bytes)
    cpdef bytes on_parse(self, ServerConnection server, bytes buffer, Py_ssize_t start, Py_ssize_t end)
    cpdef bytes ensure(self, ServerConnection server, Prepared prepared)
    cpdef bytes ensure_unnamed(self, ServerConnection server)
    @cython.locals(raw="const unsigned char *", portal_end=Py_ssize_t, name_end=Py_ssize_t, named=bint, shape=Shape,
                   pipeline=Pipeline, prepared=Prepared, ahead=bytes, length=Py_ssize_t)
    cpdef bytes on_bind(self, ServerConnection server, bytes buffer, Py_ssize_t start, Py_ssize_t end)
    @cython.locals(raw="const unsigned char *", statement=bint, named=bint, pipeline=Pipeline, prepared=Prepared,
                   ahead=bytes)
    cpdef bytes on_name(self, ServerConnection server, int letter, bytes buffer, Py_ssize_t start, Py_ssize_t end)
