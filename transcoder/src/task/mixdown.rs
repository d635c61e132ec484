//! Sound of channels whose places nobody tells, as field recorders and mixing desks write it: all of them are heard, from
//! the middle.

use ff::ChannelLayout;
use ff::format::Sample;
use ff::format::sample::Type as Layout;
use ffmpeg_next as ff;

/// Mixes a frame's channels, each equally loud, so that their power is kept. `None` for a sample format that no decoder
/// gives.
pub(super) fn to_mono(frame: &ff::frame::Audio) -> Option<ff::frame::Audio> {
    let channels = usize::from(frame.channels()).max(1);
    let mut sums = vec![0.0f32; frame.samples()];
    match frame.format() {
        Sample::U8(layout) => add::<u8>(frame, layout, channels, |v| (f32::from(v) - 128.0) / 128.0, &mut sums),
        Sample::I16(layout) => add::<i16>(frame, layout, channels, |v| f32::from(v) / 32_768.0, &mut sums),
        Sample::I32(layout) => add::<i32>(frame, layout, channels, |v| v as f32 / 2_147_483_648.0, &mut sums),
        Sample::F32(layout) => add::<f32>(frame, layout, channels, |v| v, &mut sums),
        Sample::F64(layout) => add::<f64>(frame, layout, channels, |v| v as f32, &mut sums),
        Sample::I64(_) | Sample::None => return None,
    }
    let gain = 1.0 / (channels as f32).sqrt();
    let mut mono = ff::frame::Audio::new(Sample::F32(Layout::Planar), frame.samples(), ChannelLayout::MONO);
    mono.set_rate(frame.rate());
    if mono.planes() == 0 {
        return None;
    }
    for (to, sum) in mono.plane_mut::<f32>(0).iter_mut().zip(sums) {
        *to = sum * gain;
    }
    Some(mono)
}

fn add<T: ff::frame::audio::Sample + Copy>(
    frame: &ff::frame::Audio,
    layout: Layout,
    channels: usize,
    value: impl Fn(T) -> f32,
    sums: &mut [f32],
) {
    match layout {
        Layout::Packed if frame.planes() > 0 => {
            for (sum, samples) in sums.iter_mut().zip(frame.plane::<T>(0).chunks(channels)) {
                *sum += samples.iter().map(|sample| value(*sample)).sum::<f32>();
            }
        }
        Layout::Packed => {}
        Layout::Planar => {
            for plane in 0..frame.planes() {
                for (sum, sample) in sums.iter_mut().zip(frame.plane::<T>(plane)) {
                    *sum += value(*sample);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_channel_is_heard_as_the_first_is() {
        for at in [0, 9] {
            let mut frame = ff::frame::Audio::new(Sample::I16(Layout::Packed), 4, ChannelLayout::MONO);
            frame.set_channels(1);
            frame.plane_mut::<i16>(0).copy_from_slice(&[16_384, -16_384, 0, 8_192]);
            let mono = to_mono(&frame).unwrap();
            assert_eq!(mono.plane::<f32>(0), [0.5, -0.5, 0.0, 0.25]);
            let mut planes = ff::frame::Audio::new(Sample::F32(Layout::Planar), 4, ChannelLayout::_7POINT1);
            for plane in 0..8 {
                planes.plane_mut::<f32>(plane).fill(if plane == at % 8 { 0.8 } else { 0.0 });
            }
            let mono = to_mono(&planes).unwrap();
            assert!(mono.plane::<f32>(0).iter().all(|v| (v - 0.8 / 8f32.sqrt()).abs() < 1e-6));
        }
    }
}
