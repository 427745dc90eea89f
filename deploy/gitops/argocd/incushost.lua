-- Health of an IncusHost for Argo CD.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end
local ready = conditions["Ready"]
local stalled = conditions["Stalled"]

if ready == nil then
  return { status = "Progressing", message = "the controller has not seen the host yet" }
end
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end
if ready.status ~= "True" then
  return { status = "Progressing", message = ready.message }
end
if obj.spec.unschedulable == true then
  return { status = "Suspended", message = "spec.unschedulable is set: it takes no new jobs" }
end
return { status = "Healthy", message = ready.message }
