// SPDX-License-Identifier: Apache-2.0
// Python's view of the arena and the reader; codesign.experts.run.reader checks arguments and words the errors.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <system_error>

#include "codesign/reader.hpp"

namespace nb = nanobind;
using codesign::Arena;
using codesign::Backend;
using codesign::Completion;
using codesign::Faults;
using codesign::Options;
using codesign::Reader;
using codesign::Status;

namespace {

constexpr std::int64_t kSlice = 50'000;  // microseconds between two looks for Ctrl-C

using Bytes = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>, nb::c_contig>;

Bytes bytes_of(const std::shared_ptr<Arena>& arena) {
  auto* const owner = new std::shared_ptr<Arena>(arena);
  const nb::capsule keep(owner, [](void* p) noexcept { delete static_cast<std::shared_ptr<Arena>*>(p); });
  return Bytes(arena->data(), {arena->size()}, keep);
}

// Waits until something has completed, at most `timeout_us` (negative: as long as anything is pending).
std::vector<Completion> collect(Reader& reader, std::int64_t timeout_us) {
  std::int64_t left = timeout_us;
  while (true) {
    std::vector<Completion> found;
    {
      const nb::gil_scoped_release release;
      found = reader.collect(timeout_us < 0 ? kSlice : std::min(left, kSlice));
    }
    left -= kSlice;
    if (!found.empty() || (timeout_us >= 0 && left <= 0) || reader.pending() == 0 || reader.closed())
      return found;
    if (PyErr_CheckSignals() != 0)
      throw nb::python_error();
  }
}

Reader* make(const std::string& path, std::shared_ptr<Arena> arena, const Options& options) {
  try {
    const nb::gil_scoped_release release;
    return new Reader(path, std::move(arena), options);
  } catch (const std::system_error& error) {
    errno = error.code().value();
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw nb::python_error();
  }
}

}  // namespace

void bind_reader(nb::module_& m) {
  nb::enum_<Backend>(m, "ReaderBackend").value("URING", Backend::uring).value("THREADS", Backend::threads);
  nb::enum_<Status>(m, "ReadStatus")
      .value("GOOD", Status::good)
      .value("FAILED", Status::failed)
      .value("ENDED", Status::ended)
      .value("DAMAGED", Status::damaged)
      .value("CANCELLED", Status::cancelled)
      .value("UNSOUND", Status::unsound);
  nb::class_<Faults>(m, "Faults")
      .def(nb::init<>())
      .def_rw("short_reads", &Faults::short_reads)
      .def_rw("error_at", &Faults::error_at)
      .def_rw("error", &Faults::error)
      .def_rw("flip_at", &Faults::flip_at)
      .def_rw("delay_us", &Faults::delay_us)
      .def_rw("late_us", &Faults::late_us)
      .def_rw("refuse_direct", &Faults::refuse_direct)
      .def_rw("refuse_uring", &Faults::refuse_uring);
  nb::class_<Options>(m, "ReaderOptions")
      .def(nb::init<>())
      .def_rw("backend", &Options::backend)
      .def_rw("direct", &Options::direct)
      .def_rw("depth", &Options::depth)
      .def_rw("chunk", &Options::chunk)
      .def_rw("watch_us", &Options::watch_us)
      .def_rw("faults", &Options::faults);
  nb::class_<Completion>(m, "Completion")
      .def_ro("tag", &Completion::tag)
      .def_ro("status", &Completion::status)
      .def_ro("error", &Completion::error)
      .def_ro("offset", &Completion::offset)
      .def_ro("crc", &Completion::crc)
      .def_ro("submitted_ns", &Completion::submitted_ns)
      .def_ro("started_ns", &Completion::started_ns)
      .def_ro("arrived_ns", &Completion::arrived_ns)
      .def_ro("verified_ns", &Completion::verified_ns);
  nb::class_<Arena>(m, "Arena")
      .def(nb::init<std::size_t>())
      .def_prop_ro("size", &Arena::size)
      .def("bytes", [](std::shared_ptr<Arena> arena) { return bytes_of(arena); });
  nb::class_<Reader>(m, "Reader")
      .def(nb::new_(&make), nb::arg("path"), nb::arg("arena"), nb::arg("options"))
      .def(
          "submit",
          [](Reader& reader, std::uint64_t tag, std::uint64_t offset, std::uint64_t bytes, std::uint64_t place,
             std::uint32_t crc) { reader.submit({tag, offset, bytes, place, crc}); },
          nb::arg("tag"), nb::arg("offset"), nb::arg("bytes"), nb::arg("place"), nb::arg("crc"))
      .def("cancel", &Reader::cancel)
      .def("collect", &collect, nb::arg("timeout_us"))
      .def("close", &Reader::close, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("pending", &Reader::pending)
      .def_prop_ro("backend", &Reader::backend)
      .def_prop_ro("direct", &Reader::direct);
}
