-- Runs only for predictions whose caller did not send a known `modelyard-deployment` itself, or asks for a version that does
-- not answer. What the body says decides: it replaces whatever the headers said, before the route (and with it RBAC) is chosen.

local HEADER = "modelyard-deployment"
local VERSION = "modelyard-version"

local function varint(n)
  local out = ""
  while n >= 128 do
    out = out .. string.char(n % 128 + 128)
    n = math.floor(n / 128)
  end
  return out .. string.char(n)
end

local function field(number, text)
  return string.char(number * 8 + 2) .. varint(#text) .. text
end

local function entry(key, value)
  return field(3, field(1, key) .. field(2, value))
end

-- google.rpc.Status with a google.rpc.ErrorInfo
local function details(code, message, info)
  local any = field(1, "type.googleapis.com/google.rpc.ErrorInfo") .. field(2, info)
  return string.char(8, code) .. field(2, message) .. field(3, any)
end

local function refuse(handle, code, http_status, message, info)
  local headers = handle:headers()
  if headers:get("x-envoy-original-path") then
    -- The REST form; the listener's local replies wrap the text in JSON.
    handle:respond({[":status"] = http_status}, message)
    return
  end
  handle:respond({
    [":status"] = "200",
    ["content-type"] = "application/grpc",
    ["grpc-status"] = tostring(code),
    ["grpc-status-details-bin"] = (handle:base64Escape(details(code, message, info)):gsub("=", "")),
  }, message)
end

-- Name and version in the message; nil and an empty text if it could not be read.
local function extracted(handle)
  local found = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.grpc_field_extraction")
  if not found then
    return nil, ""
  end
  local names = found["model_name"] or found["name"]
  local versions = found["model_version"] or found["version"]
  return names and names[1] or "", versions and versions[1] or ""
end

-- Methods that name a deployment; there are no others in the protocol as it is served.
local METHODS = {
  ModelInfer = true, ModelStreamInfer = true, ModelReady = true, ModelMetadata = true, ModelStatistics = true,
  Infer = true, Invoke = true, Describe = true, Ready = true, Statistics = true,
}

function envoy_on_request(handle)
  local headers = handle:headers()
  local method = (headers:get(":path") or ""):match("([^/?]+)$")
  if not METHODS[method] then
    handle:respond({[":status"] = "404", ["grpc-status"] = "12"}, "this method is not served")
    return
  end
  if headers:get("x-envoy-original-path") then
    handle:streamInfo():dynamicMetadata():set("modelyard", "rest", true)
  end
  local name, version = extracted(handle)
  -- What is not a name must not become a header.
  local valid = name and #name <= 1024 and name:match("^[%w_.@-]+$")
  -- All of them: a caller may have sent several.
  headers:remove(HEADER)
  if valid then
    headers:add(HEADER, name)
  end
  if version ~= "" then
    headers:remove(VERSION)
    -- Anything else is no version; replicas say so.
    if #version <= 19 and version:match("^%d+$") then
      headers:add(VERSION, version)
    end
  end
  local pinned = headers:get(VERSION)
  handle:clearRouteCache()
  local route = handle:metadata()
  if not route:get("unresolved") then
    if method == "ModelStreamInfer" then
      return -- goes on after the message that was looked into
    end
    -- The message was held back to be looked into, so the filter that counts bodies will not see it grow.
    -- Read the limit first: waiting for the body ends the life of every object got before.
    local maximum = route:get("max_request_bytes") or 0
    local body = handle:body()
    if body and body:length() > maximum then
      handle:respond({[":status"] = "413"}, "too large")
    end
    return
  end
  if valid then
    local info = field(1, "RESOURCE_NOT_FOUND") .. field(2, "modelyard")
      .. entry("resource_type", "deployment") .. entry("name", name)
    local problem = "does not exist, or does not answer at the moment and you lack EXECUTE on it"
    if pinned and #pinned <= 19 and pinned:match("^%d+$") then
      problem = "does not exist or does not answer with version " .. pinned
    elseif pinned then
      problem = "does not exist, or '" .. VERSION .. "' is not the number of a version"
    end
    refuse(handle, 5, "404", "deployment '" .. name .. "' " .. problem, info)
  else
    local info = field(1, "INVALID_FIELD") .. field(2, "modelyard") .. entry("field", "model_name")
    refuse(handle, 3, "400", "model_name: must be the name of a deployment, such as prod.ml_team.iris", info)
  end
end

-- In the REST form a failed call becomes the protocol's JSON error with the HTTP status of its code.
local HTTP_STATUS = {
  ["1"] = "499", ["3"] = "400", ["4"] = "504", ["5"] = "404", ["6"] = "409", ["7"] = "403", ["8"] = "429",
  ["9"] = "400", ["10"] = "409", ["11"] = "400", ["12"] = "501", ["14"] = "503", ["16"] = "401",
}

local function json_string(text)
  local escaped = text:gsub('[%c"\\]', function(c)
    return string.format("\\u%04x", string.byte(c))
  end)
  return '"' .. escaped .. '"'
end

local function percent_decoded(text)
  return (text:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local code = headers:get("grpc-status")
  if not code or code == "0" then
    return
  end
  local rest = handle:streamInfo():dynamicMetadata():get("modelyard")
  if not (rest and rest["rest"]) then
    return
  end
  local message = percent_decoded(headers:get("grpc-message") or "")
  headers:replace(":status", HTTP_STATUS[code] or "500")
  headers:replace("content-type", "application/json")
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:remove("grpc-status-details-bin")
  handle:body(true):setBytes('{"error": ' .. json_string(message) .. "}")
end
