-- Loaded into mpv by the stories: says at the end how far playback came and over how many frames. The position moves
-- with each frame that is shown.
local reached, frames = 0, 0

mp.observe_property("time-pos", "number", function(_, at)
    if at and at > reached then
        reached = at
        frames = frames + 1
    end
end)
mp.register_event("shutdown", function()
    print(string.format("reached %.3f s, frame %d", reached, frames))
end)
