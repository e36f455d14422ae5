-- For wrk: the calls of the benchmark. CALL chooses one, AUTHORIZATION is the header; done() prints what load.py reads.
local api = "/api/2.0/mlflow/"
local clock, count = os.time() * 1000, 0

wrk.headers["Authorization"] = os.getenv("AUTHORIZATION")
wrk.headers["Content-Type"] = "application/json"

local function get(path) return wrk.format("GET", path) end
local function post(path, body) return wrk.format("POST", api .. path, nil, body) end
-- One of the 64 running runs of seed.sql, in turn.
local function run() return string.format("%032x", 10001 + count % 64) end
local function metric(key) return string.format('"key":"%s","value":%f,"timestamp":%d,"step":%d', key, math.random(), clock, count) end

local calls = {
  ["get experiment"] = function() return get(api .. "experiments/get?experiment_id=9001") end,
  ["create run"] = function()
    return post("runs/create", string.format('{"experiment_id":"9003","start_time":%d,"tags":[{"key":"source","value":"bench"}]}', clock))
  end,
  ["log metric"] = function() return post("runs/log-metric", string.format('{"run_id":"%s",%s}', run(), metric("loss"))) end,
  ["log batch of 100"] = function()
    local metrics = {}
    for i = 1, 100 do metrics[i] = "{" .. metric("metric" .. i) .. "}" end
    return post("runs/log-batch", string.format('{"run_id":"%s","metrics":[%s]}', run(), table.concat(metrics, ",")))
  end,
  ["search 10,000 runs"] = function()
    return post("runs/search", '{"experiment_ids":["9001"],"filter":"metrics.metric1 > 0.5","order_by":["metrics.metric2 DESC"],"max_results":100}')
  end,
  ["static file"] = function() return get("/static-files/favicon.ico") end,
}

local call = calls[os.getenv("CALL")]
function request()
  count = count + 1
  return call()
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('{"requests":%d,"seconds":%f,"p50":%f,"p95":%f,"errors":%d}\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
