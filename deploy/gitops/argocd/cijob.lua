-- Health of a CiJob for Argo CD.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end
local function is(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end

if is("Complete") then
  return { status = "Healthy", message = conditions["Complete"].message }
end
if is("Failed") then
  local failed = conditions["Failed"]
  return { status = "Degraded", message = failed.reason .. ": " .. failed.message }
end
if obj.spec.suspend == true and not is("Admitted") then
  return { status = "Suspended", message = "spec.suspend is true" }
end
local ready = conditions["Ready"]
if ready ~= nil then
  return { status = "Progressing", message = ready.reason .. ": " .. ready.message }
end
return { status = "Progressing", message = "the controller has not seen the job yet" }
