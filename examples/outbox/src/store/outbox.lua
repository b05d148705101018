-- The requests of the outbox. Redis runs a script as a whole, so each is atomic.
-- ARGV[1] is the name of the request, ARGV[2] the names of apalis's keys as JSON, ARGV[3] the name
-- of the worker, ARGV[4] its lease in milliseconds; the request's own arguments follow.
local keys = cjson.decode(ARGV[2])
local worker, lease_millis = ARGV[3], tonumber(ARGV[4])
local clock = redis.call("TIME")
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local columns = { "id", "revision", "state", "due", "scheduled", "document" }

local function int(number) return string.format("%.0f", number) end
local function job_key(id) return "outbox:job:" .. id end

local function read(id)
    if redis.call("EXISTS", job_key(id)) == 0 then return nil end
    return redis.call("HMGET", job_key(id), unpack(columns))
end

-- Puts a job into the sets of its state.
local function index(id, state, due, scheduled, since, lease, ended)
    local before = redis.call("HGET", job_key(id), "state")
    if before then redis.call("ZREM", "outbox:state:" .. before, id) end
    redis.call("ZADD", "outbox:state:" .. state, 0, id)
    redis.call("ZREM", "outbox:leases", id)
    redis.call("ZREM", "outbox:scheduled", id)
    redis.call("ZREM", "outbox:since", id)
    redis.call("ZREM", "outbox:ended", id)
    if state == "running" or state == "handing-over" then
        redis.call("ZADD", "outbox:leases", int(lease), id)
    elseif state == "waiting" then
        redis.call("ZADD", "outbox:since", int(since), id)
        if tonumber(scheduled) == 1 then redis.call("ZADD", "outbox:scheduled", int(due), id) end
    elseif state == "sent" or state == "failed" then
        redis.call("ZADD", "outbox:ended", int(ended), id)
    end
end

-- Adds a task to apalis's schedule. Tasks that are due go to the list at once: apalis moves all due
-- tasks in one call, which fails for more than 8,000.
local function schedule(id, task, due)
    redis.call("HSET", keys.data, task, id)
    redis.call("HSET", keys.meta .. ":" .. task, "attempts", 0, "max_attempts", 1, "status",
        "Pending", "idempotency_key", "")
    if due <= now then
        redis.call("RPUSH", keys.active, task)
    else
        redis.call("ZADD", keys.scheduled, int(math.ceil(due / 1000)), task)
    end
end

local function forget_task(task)
    redis.call("HDEL", keys.data, task)
    redis.call("DEL", keys.meta .. ":" .. task)
end

-- Changes a job if it is at this revision. Returns whether it was changed.
local function save(id, revision, state, scheduled, document, delay, needs_lease, task)
    local found = redis.call("HMGET", job_key(id), "revision", "due", "since", "state")
    if not found[1] or found[1] ~= revision then return 0 end
    local since = tonumber(found[3])
    -- It waits anew.
    if found[4] == "failed" or found[4] == "unknown" then since = now end
    local held = tonumber(redis.call("ZSCORE", "outbox:leases", id) or "0")
    if needs_lease == "1" and held <= now then return 0 end
    local due = tonumber(found[2])
    if tonumber(delay) >= 0 then due = now + tonumber(delay) end
    local leased = state == "running" or state == "handing-over"
    index(id, state, due, scheduled, since, now + lease_millis, now)
    local next = int(tonumber(revision) + 1)
    redis.call("HSET", job_key(id), "revision", next, "state", state, "owner",
        leased and worker or "", "due", int(due), "scheduled", scheduled, "since", int(since),
        "document", document)
    if tonumber(delay) >= 0 then schedule(id, task, due) end
    if state == "sent" then
        redis.call("DEL", "outbox:pieces:" .. id)
        redis.call("ZREM", "outbox:pieces", id)
    end
    return 1
end

local requests = {}

function requests.put_piece(id, number, bytes)
    redis.call("HSET", "outbox:pieces:" .. id, number, bytes)
    redis.call("ZADD", "outbox:pieces", int(now), id)
    return 1
end

function requests.drop_pieces(id)
    redis.call("DEL", "outbox:pieces:" .. id)
    redis.call("ZREM", "outbox:pieces", id)
    return 1
end

-- The document has a placeholder for the time of the addition, which only the store knows.
function requests.add(id, document, at, key, digest, task, has_bytes, bytes)
    if key ~= "" then
        local name = "outbox:key:" .. key
        local found = redis.call("HMGET", name, "job", "digest")
        if found[1] then return found end
        redis.call("HSET", name, "job", id, "digest", digest)
    end
    if has_bytes == "1" then requests.put_piece(id, "0", bytes) end
    local due, scheduled = now, "0"
    if tonumber(at) > now then due, scheduled = tonumber(at), "1" end
    document = string.gsub(document, '"added":0', '"added":' .. int(now), 1)
    index(id, "waiting", due, scheduled, due, 0, 0)
    redis.call("HSET", job_key(id), "id", id, "revision", "0", "state", "waiting", "owner", "",
        "due", int(due), "scheduled", scheduled, "since", int(due), "document", document)
    schedule(id, task, due)
    return {}
end

-- Returns the tasks that a worker took, and did not claim, to apalis's list.
local function return_tasks(name)
    local inflight = keys.inflight .. ":" .. name
    for _, task in ipairs(redis.call("SMEMBERS", inflight)) do
        redis.call("RPUSH", keys.active, task)
    end
    redis.call("DEL", inflight)
end

-- Moves tasks that are due by this clock to apalis's list, and returns those that were taken and
-- not claimed: by this worker, which lost its connection between the two, or by one that was killed.
function requests.promote()
    local due
    repeat
        due = redis.call("ZRANGEBYSCORE", keys.scheduled, 0, clock[1], "LIMIT", 0, 500)
        if #due > 0 then
            redis.call("RPUSH", keys.active, unpack(due))
            redis.call("ZREM", keys.scheduled, unpack(due))
        end
    until #due < 500
    return_tasks(worker)
    requests.register()
    local gone = redis.call("ZRANGEBYSCORE", "outbox:workers", "-inf", "(" .. int(now))
    for _, name in ipairs(gone) do
        return_tasks(name)
        redis.call("ZREM", "outbox:workers", name)
    end
    return 1
end

-- Makes the jobs of tasks running that apalis took from its schedule.
function requests.claim(...)
    local claimed = {}
    local arguments = { ... }
    for i = 1, #arguments, 2 do
        local task, id = arguments[i], arguments[i + 1]
        local job = read(id)
        if redis.call("SREM", keys.inflight .. ":" .. worker, task) == 0 then
            -- This worker was stopped meanwhile, and the task was returned.
        elseif job and job[3] == "waiting" and tonumber(job[4]) > now then
            -- The clock of this worker is ahead.
            redis.call("ZADD", keys.scheduled, int(math.ceil(tonumber(job[4]) / 1000)), task)
        else
            forget_task(task)
            if job and job[3] == "waiting" then
                save(id, job[2], "running", "0", job[6], -1, "0", "")
                table.insert(claimed, read(id))
            end
        end
    end
    return claimed
end

requests.save = save

function requests.register()
    redis.call("ZADD", keys.workers, clock[1], worker)
    redis.call("ZADD", "outbox:workers", int(now + lease_millis), worker)
    return 1
end

function requests.renew(id)
    if redis.call("HGET", job_key(id), "owner") == worker then
        redis.call("ZADD", "outbox:leases", "XX", int(now + lease_millis), id)
    end
    return 1
end

local function all(ids)
    local jobs = {}
    for _, id in ipairs(ids) do
        local job = read(id)
        if job then table.insert(jobs, job) end
    end
    return jobs
end

function requests.expired()
    local before = "(" .. int(now)
    return all(redis.call("ZRANGEBYSCORE", "outbox:leases", "-inf", before, "LIMIT", 0, 100))
end

-- The jobs that this worker claimed and did not hand over.
function requests.claimed()
    local claimed = {}
    for _, id in ipairs(redis.call("ZRANGE", "outbox:leases", 0, -1)) do
        local found = redis.call("HMGET", job_key(id), "owner", "state")
        if found[1] == worker and found[2] == "running" then table.insert(claimed, id) end
    end
    return all(claimed)
end

function requests.overdue(max_age, skip)
    local before = "(" .. int(now - tonumber(max_age))
    return all(redis.call("ZRANGEBYSCORE", "outbox:since", "-inf", before, "LIMIT", skip, 100))
end

function requests.is_busy()
    local running = redis.call("ZCARD", "outbox:leases")
    local waiting = redis.call("ZCARD", "outbox:state:waiting")
    local scheduled = redis.call("ZCOUNT", "outbox:scheduled", "(" .. int(now), "+inf")
    return (running > 0 or waiting > scheduled) and 1 or 0
end

function requests.load(id) return all({ id }) end

function requests.list(state, after, limit)
    local from = after == "" and "-" or "(" .. after
    local ids = redis.call("ZRANGEBYLEX", "outbox:state:" .. state, from, "+", "LIMIT", 0, limit)
    if state == "running" then
        local also = "outbox:state:handing-over"
        local more = redis.call("ZRANGEBYLEX", also, from, "+", "LIMIT", 0, limit)
        for _, id in ipairs(more) do table.insert(ids, id) end
        table.sort(ids)
        while #ids > tonumber(limit) do table.remove(ids) end
    end
    return all(ids)
end

function requests.counts()
    local counts = {}
    for _, state in ipairs({ "waiting", "running", "handing-over", "sent", "failed", "unknown" }) do
        table.insert(counts, redis.call("ZCARD", "outbox:state:" .. state))
    end
    return counts
end

function requests.purge(age, key_seconds)
    local before = "(" .. int(now - tonumber(age))
    local ids = redis.call("ZRANGEBYSCORE", "outbox:ended", "-inf", before, "LIMIT", 0, 500)
    for _, id in ipairs(ids) do
        local state = redis.call("HGET", job_key(id), "state")
        local key = cjson.decode(redis.call("HGET", job_key(id), "document")).key
        if type(key) == "string" then redis.call("EXPIRE", "outbox:key:" .. key, key_seconds) end
        requests.drop_pieces(id)
        redis.call("ZREM", "outbox:state:" .. state, id)
        redis.call("ZREM", "outbox:ended", id)
        redis.call("DEL", job_key(id))
    end
    return #ids
end

function requests.sweep(abandoned)
    local before = "(" .. int(now - tonumber(abandoned))
    for _, id in ipairs(redis.call("ZRANGEBYSCORE", "outbox:pieces", "-inf", before)) do
        if redis.call("EXISTS", job_key(id)) == 0 then requests.drop_pieces(id) end
    end
    -- The names of workers that have ended.
    local forgotten = "(" .. int(clock[1] - tonumber(abandoned) / 1000)
    redis.call("ZREMRANGEBYSCORE", keys.workers, "-inf", forgotten)
    return 1
end

local arguments = {}
for i = 5, #ARGV do table.insert(arguments, ARGV[i]) end
return requests[ARGV[1]](unpack(arguments))
