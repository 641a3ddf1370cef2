-- For wrk: the bodies in turn, and a line of JSON at the end.

local requests, turn = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local headers = { ["Content-Type"] = "application/json" }
  for body in file:read("*a"):gmatch("[^%z]+") do
    requests[#requests + 1] = wrk.format("POST", "/orders", headers, body)
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'summary {"requests": %d, "microseconds": %d, "errors": %d, "p50": %d, "p99": %d}',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)
  ))
end
