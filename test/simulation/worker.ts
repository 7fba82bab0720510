/** A process that runs simulations: all that it loads, it loads while the clocks stand still. */
import { stopClocks } from "./Globals.js"

const go = stopClocks()
const { serve } = await import("./serve.js")
go()
await serve()
