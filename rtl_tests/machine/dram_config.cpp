// SPDX-License-Identifier: Apache-2.0
#include "dram_config.hpp"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <sstream>

namespace dram {

void fail(const std::string& what) {
  std::fprintf(stderr, "dram error: %s\n", what.c_str());
  std::exit(1);
}

namespace {

using Values = std::map<std::string, std::string>;

Fault parse_fault(const std::string& text) {
  std::vector<std::string> part;
  std::stringstream stream(text);
  for (std::string word; std::getline(stream, word, ':');)
    part.push_back(word);
  if (part.size() < 4)
    fail("a fault must be <r|w|rw>:<first>:<bytes>:<kind>, not " + text);
  Fault f{part[0].find('r') != std::string::npos,
          part[0].find('w') != std::string::npos,
          part[3] == "never",
          std::stoull(part[1], nullptr, 0),
          std::stoull(part[2], nullptr, 0),
          kOkay,
          0};
  if (part[3] == "slverr")
    f.code = kSlaveError;
  else if (part[3] == "decerr")
    f.code = kDecodeError;
  else if (part[3] == "delay" && part.size() > 4)
    f.delay = std::stod(part[4]);
  else if (!f.never)
    fail("a fault must be slverr, decerr, never or delay:cycles, not " + part[3]);
  return f;
}

Values read_values(const char* text, std::vector<Fault>& faults) {
  Values values;
  std::stringstream words(text);
  for (std::string word; words >> word;) {
    const auto equals = word.find('=');
    if (equals == std::string::npos)
      fail("CODESIGN_DRAM must hold name=value, not " + word);
    const std::string name = word.substr(0, equals);
    if (name == "fault")
      faults.push_back(parse_fault(word.substr(equals + 1)));
    else
      values[name] = word.substr(equals + 1);
  }
  return values;
}

}  // namespace

Config parse() {
  const char* text = std::getenv("CODESIGN_DRAM");
  if (text == nullptr)
    fail("CODESIGN_DRAM must be set");
  Config c;
  const Values values = read_values(text, c.faults);
  const auto take = [&values](const char* name) {
    const auto found = values.find(name);
    if (found == values.end())
      fail(std::string("CODESIGN_DRAM must hold ") + name);
    return found->second;
  };
  const auto whole = [&take](const char* name) { return std::stoull(take(name), nullptr, 0); };
  const auto real = [&take](const char* name) { return std::stod(take(name)); };
  c.file = take("file");
  c.size = whole("size");
  c.base = whole("base");
  c.page_bytes = whole("page_bytes");
  c.seed = whole("seed");
  c.rate = real("rate");
  c.latency = real("latency");
  c.row_miss = real("row_miss");
  c.row_cycle = real("row_cycle");
  c.turnaround = real("turnaround");
  c.refresh_interval = real("refresh_interval");
  c.refresh = real("refresh");
  c.burst_beats = static_cast<unsigned>(whole("burst_beats"));
  c.outstanding = static_cast<unsigned>(whole("outstanding"));
  c.banks = static_cast<unsigned>(whole("banks"));
  c.stall = static_cast<unsigned>(whole("stall"));
  if (c.stall > 99)
    fail("stall must be at most 99 percent");
  if (c.rate <= 0 || c.banks == 0 || c.page_bytes == 0 || c.burst_beats == 0 || c.outstanding == 0)
    fail("rate, banks, page_bytes, burst_beats and outstanding must be positive");
  return c;
}

}  // namespace dram
