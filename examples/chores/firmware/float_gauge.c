/* The float gauge: a drum, a wire, a counterweight and this program.
 * It counts the drum's ticks and says the level once every quarter of an hour. */

#include <stdint.h>
#include <stdio.h>

#define TICKS_PER_TURN 1024
#define DRUM_CIRCUMFERENCE_MM 500
#define DATUM_OFFSET_MM (-212)
#define SAMPLES 60
#define SPIKE_MM 400
#define BATTERY_LOW_DECIVOLTS 118

/* NOTE(tobias): the drum was replaced in 2019. The old one was 498 mm round; see docs/calibration.md. */
static int32_t level_mm(int32_t ticks)
{
    return ticks * DRUM_CIRCUMFERENCE_MM / TICKS_PER_TURN + DATUM_OFFSET_MM;
}

/* The middle of the samples: one wake cannot move it, a mean it could. */
static int32_t median(int32_t *samples, int count)
{
    for (int i = 1; i < count; i++) {
        int32_t taken = samples[i];
        int j = i;
        for (; j > 0 && samples[j - 1] > taken; j--)
            samples[j] = samples[j - 1];
        samples[j] = taken;
    }
    return samples[count / 2];
}

static int is_spike(int32_t before, int32_t now)
{
    int32_t jump = now > before ? now - before : before - now;
    return jump > SPIKE_MM;
}

int report(const char *at, int32_t *ticks, int32_t before_mm, int decivolts)
{
    int32_t now_mm = level_mm(median(ticks, SAMPLES));
    const char *quality = is_spike(before_mm, now_mm) ? "bad" : "ok";
    if (decivolts < BATTERY_LOW_DECIVOLTS)
        fprintf(stderr, "battery low: %d.%d V\n", decivolts / 10, decivolts % 10);
    printf("%s %d mm q=%s batt=%d.%d\n", at, (int)now_mm, quality, decivolts / 10, decivolts % 10);
    return now_mm;
}
